"""Datasources in a folder of this machine."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from watcher.logs import get_logger
from watcher.platform.blobs import OpenBlob
from watcher.platform.faults import Fault, invalid
from watcher.platform.objects.base import HIDDEN_FOLDER, TEMPORARY_SUFFIXES

_log = get_logger(__name__)
_INVALID = "DATASET_DATASOURCE_INVALID"
_NS = 1_000_000_000
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def check_full_path(full_path: str) -> None:
    """Refuses anything but a plain relative path; the empty one is the root itself."""
    parts = full_path.rstrip("/").split("/") if full_path else []
    if (
        full_path.startswith("/")
        or "\0" in full_path
        or "\\" in full_path
        or "://" in full_path
        or len(full_path.encode("utf-8", "replace")) > 1024
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise invalid(
            "fullPath of a LOCAL datasource is relative to the server's root: no leading slash, no dot parts, no ://",
            _INVALID,
        )


class FolderSource:
    """A folder below the root that the operator allows.

    Symbolic links to files are listed and read if they stay below the root; links to folders are not followed.

    What is kept secret from users of the API is neither listed nor read: the platform's own data, and where that lies
    below the root, the root itself and the files right in it, which are the operator's (the daemon's store and keys).
    """

    signs_slowly = False

    def __init__(self, *, root: Path, full_path: str, excluded: Path | None = None) -> None:
        """Looks at nothing yet.

        Args:
            root: the allowed folder.
            full_path: relative to it, as configured.
            excluded: the platform's own data.
        """
        check_full_path(full_path)
        self._root = root
        self._full_path = full_path
        self._excluded = str(excluded.resolve()) if excluded is not None else None
        self._holds_own_data = self._excluded is not None and is_inside(
            self._excluded, os.path.realpath(root)
        )

    def _is_own(self, real: str) -> bool:
        return self._excluded is not None and is_inside(real, self._excluded)

    def _is_private(self, real: str, root: str) -> bool:
        """Whether nobody may read that file."""
        # Plain strings, as in a walk over millions.
        return self._is_own(real) or (self._holds_own_data and real.rpartition("/")[0] == root)

    def _resolve(self) -> tuple[str, str]:
        """The root and the folder, both real; refuses what is missing or leads outside."""
        try:
            root = os.path.realpath(self._root, strict=True)
            folder = os.path.realpath(self._root / self._full_path, strict=True)
        except OSError as error:
            raise self._refuse(error) from error
        if not is_inside(folder, root):
            raise invalid(f"the folder {self._full_path!r} leads out of the datasource root", _INVALID)
        if self._is_own(folder) or (self._holds_own_data and folder == root):
            raise invalid(
                f"the folder {self._full_path!r} holds this server's own data, or may: name a folder below the "
                "server's root that holds pictures alone",
                _INVALID,
            )
        if not os.path.isdir(folder):  # noqa: PTH112 - plain strings are what scandir works with
            raise invalid(f"the datasource {self._full_path!r} is not a folder", _INVALID)
        return root, folder

    def _refuse(self, error: OSError, inner: str = "") -> Fault:
        where = "/".join(part for part in (self._full_path, inner) if part) or "."
        if isinstance(error, FileNotFoundError):
            return invalid(
                f"the datasource's folder {where!r} does not exist below the server's root", _INVALID
            )
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        return invalid(f"the datasource's folder {where!r} cannot be listed: {reason}", _INVALID)

    def scan(self, *, from_s: int, to_s: int) -> Iterator[tuple[int, str]]:
        """Walks the whole tree; the time is the last change of the content, in whole seconds, never below 0."""
        root, top = self._resolve()
        n_unreadable = 0
        stack = [("", top)]
        while stack:
            prefix, folder = stack.pop()
            try:
                # By descriptor, so that the system looks up each name in its folder and not from the top.
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError as error:
                if prefix and error.errno in _GONE:
                    continue  # removed or replaced since its parent was read
                raise self._refuse(error, prefix) from error
            try:
                with os.scandir(descriptor) as entries:
                    for entry in entries:
                        name = prefix + entry.name
                        try:
                            if entry.is_file(follow_symlinks=False):
                                status = entry.stat(follow_symlinks=False)
                            elif entry.is_dir(follow_symlinks=False):
                                path = f"{folder}/{entry.name}"
                                if entry.name != HIDDEN_FOLDER and path != self._excluded:
                                    stack.append((name + "/", path))
                                continue
                            else:
                                status = entry.stat()
                                real = os.path.realpath(f"{folder}/{entry.name}")
                                if (
                                    not stat.S_ISREG(status.st_mode)
                                    or not is_inside(real, root)
                                    or self._is_private(real, root)
                                ):
                                    continue
                        except FileNotFoundError:
                            continue  # removed since, or a link to nothing
                        except OSError as error:
                            if error.errno == errno.ELOOP:
                                continue
                            raise self._refuse(error, name) from error
                        modified_s = max(0, status.st_mtime_ns // _NS)
                        if not from_s <= modified_s <= to_s or name.endswith(TEMPORARY_SUFFIXES):
                            continue
                        if not name.isascii():
                            try:
                                name.encode()
                            except UnicodeEncodeError:
                                n_unreadable += 1
                                continue
                        yield modified_s, name
            finally:
                os.close(descriptor)
        if n_unreadable:
            _log.warning(
                "datasource.names_skipped", count=n_unreadable, reason="not UTF-8", folder=self._full_path
            )

    def open(self, name: str) -> OpenBlob | None:
        """Opens a regular file that lies, links resolved, below the root."""
        if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
            return None
        root, folder = self._resolve()
        try:
            real = os.path.realpath(os.path.join(folder, name), strict=True)  # noqa: PTH118 - plain strings, as above
            if not is_inside(real, root) or self._is_private(real, root):
                return None
            # Not blocking, so that a pipe put there does not hold the thread.
            descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR):
                return None
            raise self._refuse(error, name) from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            return None
        return OpenBlob(size=status.st_size, modified_s=status.st_mtime, file=os.fdopen(descriptor, "rb"))

    def exists(self, name: str) -> bool:
        """Whether `open` would find it."""
        blob = self.open(name)
        if blob is None:
            return False
        blob.file.close()
        return True

    def sign_reads(self, names: Sequence[str], *, ttl_s: int) -> Sequence[str | None] | None:
        """The platform serves the files itself."""
        del names, ttl_s
        return None

    def verify(self, *, probe: str) -> dict[str, str]:
        """Lists the folder and writes, reads and rewrites a file below `.lightly/`."""
        _root, folder = self._resolve()
        missing: dict[str, str] = {}
        try:
            with os.scandir(folder) as entries:
                next(entries, None)
        except OSError as error:
            missing["canList"] = missing["canRead"] = os.strerror(error.errno or 0)
        path = Path(folder) / HIDDEN_FOLDER / probe
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"1")
        except OSError as error:
            missing["canWrite"] = missing["canOverwrite"] = os.strerror(error.errno or 0)
            return missing
        try:
            path.write_bytes(b"2")
            if path.read_bytes() != b"2":
                missing["canOverwrite"] = "an overwritten file kept its old content"
        except OSError as error:
            missing["canOverwrite"] = os.strerror(error.errno or 0)
        finally:
            path.unlink(missing_ok=True)
        return missing


def is_inside(path: str, root: str) -> bool:
    """Whether the real path is the root or below it."""
    return path == root or path.startswith(root if root.endswith("/") else root + "/")
