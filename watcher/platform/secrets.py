"""Keys of the installation: made once, kept in the data folder, readable by their owner alone.

Everything the platform signs, hashes or encrypts hangs on one key file; a backup without it cannot read stored
credentials, and signed URLs and tokens of before stop working.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from watcher.domain.errors import ConfigError

KEY_FILE = "platform.key"
_KEY_BYTES = 32
_ID = re.compile(r"[a-f0-9]{24}")


class Keys:
    """Keys for each purpose, derived from the one in the file.

    Keyed BLAKE2b is the message authentication code throughout: a third of the time of HMAC-SHA256, which counts in
    listings where every row is signed.
    """

    def __init__(self, root: bytes) -> None:
        self._url = hashlib.blake2b(key=_derive(root, b"url"), digest_size=16)
        self._token = hashlib.blake2b(key=_derive(root, b"token"), digest_size=32)
        self._cursor = hashlib.blake2b(key=_derive(root, b"cursor"), digest_size=16)
        self.vault_key = base64.urlsafe_b64encode(_derive(root, b"vault"))

    def sign_url(self, message: bytes) -> str:
        """Signature of a URL, 32 hexadecimal digits."""
        mac = self._url.copy()
        mac.update(message)
        return mac.hexdigest()

    def sign_urls(self, head: bytes, tails: Iterable[bytes]) -> list[str]:
        """Like `sign_url` of `head` and each tail; a plain loop, since listings sign every row with it."""
        begun = self._url.copy()
        begun.update(head)
        copy, signatures = begun.copy, []
        for tail in tails:
            mac = copy()
            mac.update(tail)
            signatures.append(mac.hexdigest())
        return signatures

    def sign_cursor(self, message: bytes) -> bytes:
        """Signature of a cursor, 16 bytes."""
        mac = self._cursor.copy()
        mac.update(message)
        return mac.digest()

    def hash_token(self, token: str) -> str:
        """What is stored of a token."""
        mac = self._token.copy()
        mac.update(token.encode("utf-8", "surrogateescape"))
        return mac.hexdigest()


def _derive(root: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(purpose, key=root, digest_size=32, person=b"platform").digest()


def load_keys(data_dir: Path, *, configured: str | None = None) -> Keys:
    """The keys of the configured text if there is one, else of the key file, which is made if it is absent.

    Raises:
        ConfigError: the key is damaged, or others can read the file.
    """
    if configured is not None:
        return _read_keys(configured, "WATCHER_PLATFORM__KEY", f"give {2 * _KEY_BYTES} hexadecimal digits")
    path = data_dir / KEY_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(_KEY_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"others may read {path}: run `chmod 600 {path}`")
    return _read_keys(
        path.read_text(encoding="ascii", errors="replace"), str(path), "restore it from the backup"
    )


def _read_keys(text: str, place: str, way_out: str) -> Keys:
    try:
        root = bytes.fromhex(text.strip())
    except ValueError:
        root = b""
    if len(root) != _KEY_BYTES:
        raise ConfigError(f"the key in {place} is damaged: {way_out}")
    return Keys(root)


def new_id(now_s: float) -> str:
    """A fresh id: 24 hexadecimal digits, the first eight the time, so that indexes grow at one end."""
    return f"{int(now_s) & 0xFFFFFFFF:08x}{secrets.token_hex(8)}"


def is_id(text: str) -> bool:
    """Whether the text has the form of an id."""
    return _ID.fullmatch(text) is not None
