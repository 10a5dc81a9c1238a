"""Environments with the released `lightly` clients, the peers of the benchmarks; made once, kept in the checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_NEEDED = {
    # What its API client imports; torch and its companions are not among it.
    "1.5.26": [
        "requests",
        "pydantic",
        "python-dateutil",
        "tqdm",
        "numpy",
        "pillow",
        "urllib3",
        "certifi",
        "aenum",
        "six",
    ],
}


def build_environment(version: str) -> Path:
    """The Python of an environment with that version of `lightly`."""
    folder = _ROOT / f".official-{version}"
    python = folder / "bin" / "python"
    done = folder / ".done"
    if not done.exists():
        print(f"   installing lightly {version} into {folder.name}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", f"lightly=={version}"], check=True, stderr=subprocess.DEVNULL)
        subprocess.run([*pip, *_NEEDED[version]], check=True, stderr=subprocess.DEVNULL)
        done.touch()
    return python
