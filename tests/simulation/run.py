"""Runs seeds: `python -m tests.simulation.run SEED...`, `--from A --count N`, or `--minutes M`; exit code 1 if one fails."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.builders import open_store
from tests.fast_folder import find_fast_folder
from tests.simulation.world import World

SEEDS_FILE = Path(__file__).with_name("seeds.txt")
_SHOWN_TRACE = 150


@dataclass
class Verdict:
    """What became of a seed; `trace` is the end of what happened."""

    seed: int
    violations: list[str]
    trace: list[str]
    n_crashes: int

    def explain(self) -> str:
        """Everything a person needs to repeat it."""
        return "\n".join(
            [
                *self.trace,
                f"seed {self.seed} fails:",
                *(f"  {violation}" for violation in self.violations),
                f"repeat it: python -m tests.simulation.run {self.seed}",
                f"once it is mended, add it to {SEEDS_FILE.name}",
            ]
        )


def make_migrated_file(folder: Path) -> Path:
    """An empty store with its tables, to be copied for each seed."""
    path = folder / "migrated.sqlite"
    with open_store(f"sqlite:///{path}"):
        pass
    return path


def run_seed(seed: int, migrated_file: Path, *, shown: int = _SHOWN_TRACE) -> Verdict:
    """One schedule from its beginning to its end."""
    with tempfile.TemporaryDirectory(prefix=f"sim-{seed}-") as folder:
        world = World(seed, Path(folder), migrated_file)
        world.run()
    return Verdict(seed, world.violations, list(world.trace)[-shown:] if shown else [], world.n_crashes)


def read_seeds() -> list[int]:
    """The seeds that once failed."""
    lines = SEEDS_FILE.read_text(encoding="utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]


def main() -> int:
    """Prints what fails with its trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", nargs="*", type=int)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--trace", type=int, default=_SHOWN_TRACE)
    parser.add_argument("--keep-going", action="store_true")
    options = parser.parse_args()
    seeds = iter(options.seeds or range(options.first, options.first + (options.count or 10**9)))
    begun_s = time.monotonic()
    n_run = n_failed = n_crashes = 0
    tempfile.tempdir = find_fast_folder()
    with tempfile.TemporaryDirectory(prefix="sim-") as folder:
        migrated_file = make_migrated_file(Path(folder))
        for seed in seeds:
            if options.minutes and time.monotonic() - begun_s > 60 * options.minutes:
                break
            verdict = run_seed(seed, migrated_file, shown=options.trace)
            n_run += 1
            n_crashes += verdict.n_crashes
            if verdict.violations:
                n_failed += 1
                sys.stdout.write(verdict.explain() + "\n")
                if not options.keep_going:
                    break
    seconds = time.monotonic() - begun_s
    sys.stdout.write(f"{n_run} schedules, {n_crashes} crashes, {n_failed} failed, {seconds:.1f} s\n")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
