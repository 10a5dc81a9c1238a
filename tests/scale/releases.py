"""Another release of the program: a copy of the package with one more migration, run from its own folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
{more}

def upgrade():
    {body}
"""


def find_head() -> str:
    """The newest version of the present migrations."""
    return max(path.name[:4] for path in (ROOT / "migrations" / "watcher" / "versions").glob("0*.py"))


class Release:
    """Starts processes as `tests.acceptance.forge.Forge` does, of another code."""

    def __init__(self, folder: Path, *, like: Path = ROOT) -> None:
        self.folder = folder
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        for name in ("watcher", "migrations"):
            shutil.copytree(like / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))

    def add_migration(self, revision: str, *, before: str, body: str, more: str = "") -> None:
        text = _MIGRATION.format(revision=revision, before=before, body=body, more=more)
        (self.folder / "migrations" / "watcher" / "versions" / f"{revision}_next.py").write_text(text)

    def start(self, arguments: list[str], *, environ: dict[str, str], out: Path, log: Path) -> int:
        with out.open("ab") as output, log.open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "watcher", *arguments],
                cwd=self.folder,
                env={**environ, "PYTHONPATH": str(self.folder), "PATH": os.environ.get("PATH", "")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )
        self._running[process.pid] = process
        return process.pid

    def wait(self, pid: int, *, limit_s: float) -> int | None:
        try:
            return self._running[pid].wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return None
