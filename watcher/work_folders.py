"""Temporary folders that tell whether the process they belong to still lives: each is locked as long as it is in use.

The lock ends with its process, however that ends, so whoever starts later below the same work folder can remove what
the dead left, and nothing of the living: workers, replicas and commands may share one.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MOST_REMOVED = 10_000
# Without a lock to go by, on file systems that have none, only what is older than any attempt counts as left.
_OLD_S = 7 * 86_400
_TRIES = 5


@contextmanager
def open_work_folder(work_dir: Path, *, prefix: str) -> Iterator[Path]:
    """A folder of one's own below `work_dir`, locked meanwhile and removed at the end.

    Raises:
        OSError: it cannot be made.
    """
    folder, handle = _make(work_dir, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _make(work_dir: Path, prefix: str) -> tuple[Path, int]:
    for left in reversed(range(_TRIES)):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=work_dir))
        handle = None
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            _try_lock(handle)
            # Somebody who starts just now may have taken it for a dead one's before it was locked.
            if folder.exists():
                return folder, handle
        except FileNotFoundError:
            if left == 0:
                raise
        if handle is not None:
            os.close(handle)
    raise FileNotFoundError(f"{work_dir}: each folder made there is removed at once")


def clear_abandoned(work_dir: Path) -> int:
    """Removes what killed processes left below `work_dir`; at most ten thousand entries at once.

    Returns:
        How many entries were removed.
    """
    n_removed = 0
    for path in itertools.islice(sorted(work_dir.iterdir()), _MOST_REMOVED):
        n_removed += _remove_if_abandoned(path)
    return n_removed


def _remove_if_abandoned(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            locked = _try_lock(handle)
            if locked or (locked is None and time.time() - os.fstat(handle).st_mtime > _OLD_S):
                shutil.rmtree(path, ignore_errors=True)
                return True
        finally:
            os.close(handle)
    return False


def _try_lock(handle: int) -> bool | None:
    """True: taken; False: another one has it; None: this file system cannot tell."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
