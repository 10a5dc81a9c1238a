"""Another list of keys takes the place of the present one: what is stored moves to the newest of them.

Signatures need nothing: each of the listed keys is believed. Credentials of datasources are encrypted anew at once;
tokens are known here as hashes alone, so each moves when its user shows it next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from watcher.domain.errors import ConfigError
from watcher.logs import get_logger
from watcher.platform.secrets import Keys
from watcher.platform.store import datasources as store
from watcher.platform.store import users as user_store
from watcher.platform.store.datasources import DatasourceRow
from watcher.platform.vault import Vault

if TYPE_CHECKING:
    from watcher.platform.context import Platform

_log = get_logger(__name__)
_PAGE = 200
_MOST_NAMED = 10
_WAY = "write the new key in the line above the old one, and take the old one away when nothing hangs on it any more"


def take_keys(platform: Platform, keys: Keys) -> None:
    """Puts the keys in the place of the present ones, and encrypts credentials anew.

    Raises:
        ConfigError: the newest key so far is not among them, or credentials hang on another that is not; the present
            ones stay.
    """
    if platform.keys.ids[0] not in keys.ids:
        raise ConfigError(f"the key in use is no longer listed: {_WAY}")
    future = Vault(keys)
    n_lost = sum(
        platform.vault.is_readable(row.secrets) and not future.is_readable(row.secrets)
        for row in _iter_locked(platform)
    )
    if n_lost:
        raise ConfigError(
            f"the credentials of {n_lost} datasources are encrypted with a key that is no longer listed: {_WAY}"
        )
    dropped = set(platform.keys.ids) - set(keys.ids)
    with platform.database.read() as session:
        ended = [user.name for user in user_store.load_users(session) if user.token_key in dropped]
    if ended:
        _log.warning("tokens.ended", n=len(ended), users=ended[:_MOST_NAMED])
    platform.keys.replace(keys)
    encrypt_anew(platform)
    platform.users.clear()
    platform.sources.clear()


def encrypt_anew(platform: Platform) -> None:
    """Encrypts with the newest key whatever an earlier one encrypted; another replica may do the same meanwhile."""
    n_moved = n_unreadable = 0
    for row in _iter_locked(platform):
        if not platform.vault.is_readable(row.secrets):
            n_unreadable += 1
            continue
        fresh = platform.vault.relock(row.secrets)
        if fresh != row.secrets:
            with platform.database.write() as session:
                store.replace_secrets(session, datasource_id=row.id, secrets=fresh, instead_of=row.secrets)
            n_moved += 1
    if n_moved:
        _log.info("credentials.encrypted", n=n_moved, key=platform.keys.ids[0])
    if n_unreadable:
        _log.warning("credentials.unreadable", n=n_unreadable)


def _iter_locked(platform: Platform) -> Iterator[DatasourceRow]:
    """The datasources with credentials; memory is a page of them, and no transaction stays open between two."""
    after_id = ""
    while True:
        with platform.database.read() as session:
            rows = store.load_locked(session, after_id=after_id, limit=_PAGE)
        yield from rows
        if len(rows) < _PAGE:
            return
        after_id = rows[-1].id
