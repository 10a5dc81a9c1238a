"""Signed statements: what was listed and what became of it, a link a day of a chain nobody can change unnoticed.

A statement is a text of JSON. Its signature is HMAC-SHA256 over the text with a key that is not in the store, so that
whoever can write there cannot sign; each names the key by its id, and the hash of the one before, so a statement that
was changed, left out or put in breaks the chain, also where keys change along it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterable, Iterator

import msgspec

from watcher.domain.errors import StatementError

VERSION = 2
_KEY_ID_LENGTH = 16


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What a full comparison found on one day.

    Attributes:
        day: UTC, such as 2026-11-25.
        made_ms: when, unix milliseconds.
        to_s: objects changed after this second were left out.
        n_listed: names the datasource had, and `listed` what became of them by state.
        samples: all names ever listed, by state; `n_missing` of them no poll had found before.
        n_unexplained: names whose state nothing explains.
        n_remote: names the dataset had.
        names_sha256: of the lines `name NUL state LF` of all names, sorted by the name's UTF-8 bytes.
        previous: hash of the statement before; None for the first.
        key_id: of the key it was signed with; None in those of version 1.
    """

    version: int
    watch: str
    server: str
    dataset_id: str
    day: str
    made_ms: int
    to_s: int
    n_listed: int
    listed: dict[str, int]
    samples: dict[str, int]
    n_missing: int
    n_unexplained: int
    n_remote: int
    names_sha256: str
    previous: str | None
    key_id: str | None = None


class SignedStatement(msgspec.Struct, frozen=True, kw_only=True):
    """The text that was signed, byte for byte, and its signature in hexadecimal digits."""

    body: str
    signature: str

    @property
    def hash(self) -> str:
        """By which the next one names this one."""
        return hashlib.sha256(f"{self.body}\n{self.signature}".encode()).hexdigest()


def compute_names_digest(rows: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over (name, state) in the order given; memory is one row."""
    digest = hashlib.sha256()
    for name, state in rows:
        digest.update(f"{name}\0{state}\n".encode())
    return digest.hexdigest()


class _Claim(msgspec.Struct, frozen=True):
    """What an unproven statement says of its key."""

    key_id: str | None = None


def compute_key_id(key: str) -> str:
    """By which a key is named, without telling anything of it."""
    return hmac.new(key.encode(), b"id of a key of statements", hashlib.sha256).hexdigest()[:_KEY_ID_LENGTH]


def split_keys(text: str) -> list[str]:
    """The keys of a text, a line each, the newest first."""
    return [key for line in text.splitlines() if (key := line.strip())]


def sign(statement: Statement, *, key: str) -> SignedStatement:
    """Puts the statement into words, with the id of the key, and signs them."""
    named = msgspec.structs.replace(statement, key_id=compute_key_id(key))
    body = msgspec.json.encode(named, order="sorted").decode()
    return SignedStatement(body=body, signature=_compute_signature(body, key))


def verify_chain(signed: Iterable[SignedStatement], *, keys: Collection[str]) -> Iterator[Statement]:
    """Gives each statement once it and its place in the chain are proven; memory is one statement.

    Args:
        signed: the statements of one watch, oldest first, from the first on.
        keys: what they were signed with, all of it.

    Raises:
        StatementError: the first one that is not as it was made, by its place and day.
    """
    previous: str | None = None
    before: Statement | None = None
    by_id = {compute_key_id(key): key for key in keys}
    for number, each in enumerate(signed, 1):
        _check_signature(number, each, by_id)
        try:
            statement = msgspec.json.decode(each.body, type=Statement)
        except msgspec.MsgspecError as error:
            raise StatementError(
                f"statement {number} is signed, but of a form not known here: {error}"
            ) from error
        where = f"statement {number} ({statement.watch}, {statement.day})"
        if statement.previous != previous:
            raise StatementError(
                f"{where} does not follow the one before it: one was left out, put in, or is in another order"
            )
        if before is not None and (before.watch, before.dataset_id) != (
            statement.watch,
            statement.dataset_id,
        ):
            raise StatementError(f"{where} is of another watch or dataset than those before it")
        previous, before = each.hash, statement
        yield statement


def _check_signature(number: int, signed: SignedStatement, by_id: dict[str, str]) -> None:
    try:
        key_id = msgspec.json.decode(signed.body, type=_Claim).key_id
    except msgspec.MsgspecError:
        key_id = None
    if key_id is not None and key_id not in by_id:
        raise StatementError(
            f"statement {number} says that it was signed with the key {key_id[:_KEY_ID_LENGTH]!r}, which is none of "
            f"those given ({', '.join(by_id) or 'none'}): name the file of that key too"
        )
    tried = by_id.values() if key_id is None else [by_id[key_id]]
    if not any(hmac.compare_digest(_compute_signature(signed.body, key), signed.signature) for key in tried):
        raise StatementError(
            f"statement {number} is not the one that was signed: it was changed, or signed with another key"
        )


def _compute_signature(body: str, key: str) -> str:
    return hmac.new(key.encode(), body.encode(), hashlib.sha256).hexdigest()
