"""Keys of the installation: made once, kept in the data folder, readable by their owner alone.

Everything the platform signs, hashes or encrypts hangs on one key file; a backup without it cannot read stored
credentials, and signed URLs and tokens of before stop working. A key changes by standing above the one of before: the
newest signs, hashes and encrypts, all of them are believed.
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
from typing import NamedTuple

from watcher.domain.errors import ConfigError

KEY_FILE = "platform.key"
_KEY_BYTES = 32
_ID_LENGTH = 8
_ID = re.compile(r"[a-f0-9]{24}")


class HashedToken(NamedTuple):
    """What is stored of a token, and the id of the key that it was hashed with."""

    hash: str
    key_id: str


class _Key:
    """Keys for each purpose, derived from one.

    Keyed BLAKE2b is the message authentication code throughout: a third of the time of HMAC-SHA256, which counts in
    listings where every row is signed.
    """

    def __init__(self, root: bytes) -> None:
        self.id = _derive(root, b"id").hex()[:_ID_LENGTH]
        self.url = hashlib.blake2b(key=_derive(root, b"url"), digest_size=16)
        self.token = hashlib.blake2b(key=_derive(root, b"token"), digest_size=32)
        self.cursor = hashlib.blake2b(key=_derive(root, b"cursor"), digest_size=16)
        self.vault = base64.urlsafe_b64encode(_derive(root, b"vault"))


class Keys:
    """All keys, the newest first; others may take their place while requests are answered."""

    def __init__(self, *roots: bytes) -> None:
        self._keys = tuple(_Key(root) for root in roots)

    def replace(self, keys: Keys) -> None:
        """Those take the place of these."""
        self._keys = keys._keys

    @property
    def ids(self) -> list[str]:
        """By which the keys are named, without telling anything of them."""
        return [key.id for key in self._keys]

    @property
    def vault_keys(self) -> tuple[bytes, ...]:
        """What stored credentials are encrypted with."""
        return tuple(key.vault for key in self._keys)

    def sign_url(self, message: bytes) -> str:
        """Signature of a URL, 32 hexadecimal digits."""
        return _digest(self._keys[0].url, message).hex()

    def sign_urls(self, head: bytes, tails: Iterable[bytes]) -> list[str]:
        """Like `sign_url` of `head` and each tail; a plain loop, since listings sign every row with it."""
        begun = self._keys[0].url.copy()
        begun.update(head)
        copy, signatures = begun.copy, []
        for tail in tails:
            mac = copy()
            mac.update(tail)
            signatures.append(mac.hexdigest())
        return signatures

    def is_url_signature(self, message: bytes, signature: str) -> bool:
        """Whether `sign_url` made it, with any of the keys."""
        given = signature.encode("utf-8", "replace")
        return any(
            secrets.compare_digest(_digest(key.url, message).hex().encode(), given) for key in self._keys
        )

    def sign_cursor(self, message: bytes) -> bytes:
        """Signature of a cursor, 16 bytes."""
        return _digest(self._keys[0].cursor, message)

    def is_cursor_signature(self, message: bytes, signature: bytes) -> bool:
        """Whether `sign_cursor` made it, with any of the keys."""
        return any(secrets.compare_digest(_digest(key.cursor, message), signature) for key in self._keys)

    def hash_token(self, token: str) -> HashedToken:
        """What is stored of a token."""
        return self.hash_token_by_each(token)[0]

    def hash_token_by_each(self, token: str) -> list[HashedToken]:
        """What may be stored of a token: by each key, the newest first."""
        encoded = token.encode("utf-8", "surrogateescape")
        return [HashedToken(_digest(key.token, encoded).hex(), key.id) for key in self._keys]


def _digest(begun: hashlib.blake2b, message: bytes) -> bytes:
    mac = begun.copy()
    mac.update(message)
    return mac.digest()


def _derive(root: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(purpose, key=root, digest_size=32, person=b"platform").digest()


def load_keys(data_dir: Path, *, configured: str | None = None) -> Keys:
    """The keys of the configured text if there is one, else of the key file, which is made if it is absent.

    Raises:
        ConfigError: a key is damaged, or others can read the file.
    """
    if configured is not None:
        return read_configured_keys(configured)
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


def read_configured_keys(text: str) -> Keys:
    """The keys of `WATCHER_PLATFORM__KEY`.

    Raises:
        ConfigError: one is damaged.
    """
    return _read_keys(
        text,
        "WATCHER_PLATFORM__KEY",
        f"give {2 * _KEY_BYTES} hexadecimal digits a line, the newest key first",
    )


def _read_keys(text: str, place: str, way_out: str) -> Keys:
    roots = []
    for line in text.split():
        try:
            root = bytes.fromhex(line)
        except ValueError:
            root = b""
        if len(root) != _KEY_BYTES:
            raise ConfigError(f"a key in {place} is damaged: {way_out}")
        roots.append(root)
    if not roots:
        raise ConfigError(f"there is no key in {place}: {way_out}")
    return Keys(*roots)


def new_id(now_s: float) -> str:
    """A fresh id: 24 hexadecimal digits, the first eight the time, so that indexes grow at one end."""
    return f"{int(now_s) & 0xFFFFFFFF:08x}{secrets.token_hex(8)}"


def is_id(text: str) -> bool:
    """Whether the text has the form of an id."""
    return _ID.fullmatch(text) is not None
