"""Runs every benchmark: `make bench`, or `python -m benchmarks NAME ...` for some of them.

A benchmark is a module with `main() -> int`, which prints what it measured beside a peer or a limit of the same run
and returns 0 if the limit holds.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time
from pathlib import Path


def _find() -> list[str]:
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    return [name for name in names if name != "__main__" and hasattr(_load(name), "main")]


def _load(name: str) -> object:
    return importlib.import_module(f"benchmarks.{name}")


def run(wanted: list[str]) -> int:
    """Runs the wanted benchmarks, or all; returns the number of missed limits."""
    known = _find()
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(known)}")
        return 2
    missed = []
    for name in wanted or known:
        print(f"\n== {name}", flush=True)
        begun_s = time.monotonic()
        if _load(name).main():
            missed.append(name)
        print(f"   ({time.monotonic() - begun_s:.0f} s)", flush=True)
    print(
        f"\n{len(missed)} of {len(wanted or known)} missed a limit{': ' + ', '.join(missed) if missed else ''}"
    )
    return len(missed)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
