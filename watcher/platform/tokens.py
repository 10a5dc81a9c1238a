"""Whose a token is. Tokens are kept as hashes with a key, and move to the newest key when they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watcher.domain.errors import StoreError
from watcher.logs import get_logger
from watcher.platform.faults import Fault
from watcher.platform.store import users as store
from watcher.platform.store.users import User

if TYPE_CHECKING:
    from watcher.platform.context import Platform

_log = get_logger(__name__)
_MAX_TOKEN = 1024


def authenticate(platform: Platform, token: str) -> User:
    """The user of the token of a call; who came lately is not looked up.

    Raises:
        Fault: 401, no or an unknown token.
    """
    if not token:
        raise Fault(401, "UNAUTHORIZED", "the token is missing: send it as query parameter token")
    user = find_recent(platform, token)
    if user is None:
        user = find_by_token(platform, token)
        if user is None:
            raise Fault(401, "UNAUTHORIZED", "the token is not known here")
        platform.users.keep(user, platform.keys.hash_token(token).hash)
    return user


def find_recent(platform: Platform, token: str) -> User | None:
    """The user of a token that was looked up in the last seconds; asks nobody, so it never waits."""
    return platform.users.find(platform.keys.hash_token(token).hash) if token else None


def find_by_token(platform: Platform, token: str) -> User | None:
    """The user of a token; looks in the database."""
    if not token or len(token) > _MAX_TOKEN:
        return None
    hashed = platform.keys.hash_token_by_each(token)
    hashes = [each.hash for each in hashed]
    with platform.database.read() as session:
        user = store.load_user_by_hashes(session, token_hashes=hashes)
    if user is not None and user.token_key != hashed[0].key_id:
        _move(platform, user, hashes=hashes, key_id=hashed[0].key_id)
    return user


def _move(platform: Platform, user: User, *, hashes: list[str], key_id: str) -> None:
    """Hashes the token with the newest key, so that the earlier ones can go."""
    try:
        with platform.database.write() as session:
            store.update_token_hash(
                session, user_id=user.id, token_hash=hashes[0], token_key=key_id, instead_of=hashes
            )
    except StoreError as error:  # the caller may only want to read; the next call tries again
        _log.warning("token.not_moved", user=user.name, reason=str(error))
