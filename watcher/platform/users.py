"""Users, for the operator: adding, listing, new tokens, limits, sharing. Works beside a running platform."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy.exc import IntegrityError

from watcher.database.schema import check_schema
from watcher.domain.clock import Clock
from watcher.domain.errors import ConfigError
from watcher.platform.secrets import new_id
from watcher.platform.settings import FIRST_USER
from watcher.platform.store import configurations as configuration_store
from watcher.platform.store import datasets as dataset_store
from watcher.platform.store import jobs as job_store
from watcher.platform.store import users as store
from watcher.platform.store.tables import SCHEMA
from watcher.platform.store.users import User

if TYPE_CHECKING:
    from watcher.platform.context import Platform
    from watcher.platform.settings import PlatformConfig

_TOKEN_BYTES = 24
_MAX_NAME = 100


@contextmanager
def open_platform(config: PlatformConfig, *, clock: Clock) -> Iterator[Platform]:
    """The parts of a platform for a command; refuses another schema than its own."""
    from watcher.platform.app import build_platform  # noqa: PLC0415 - brings libraries a slim image lacks

    platform = build_platform(config, clock=clock)
    try:
        check_schema(platform.database, SCHEMA)
        yield platform
    finally:
        platform.listings.close()
        platform.database.close()


def add_user(
    platform: Platform, *, name: str, max_samples: int | None = None, max_datasets: int | None = None
) -> str:
    """Adds a user and gives their token, which is shown this once only.

    Raises:
        ConfigError: the name is taken, empty, too long or holds a slash.
    """
    if not name.strip() or len(name) > _MAX_NAME or not name.isprintable() or "/" in name:
        raise ConfigError(f"the name of a user has 1 to {_MAX_NAME} printable characters and no slash")
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    now_s = platform.clock.now_s()
    hashed = platform.keys.hash_token(token)
    try:
        with platform.database.write() as session:
            store.insert_user(
                session,
                user_id=new_id(now_s),
                name=name,
                token_hash=hashed.hash,
                token_key=hashed.key_id,
                now_ms=int(now_s * 1000),
                max_samples=max_samples,
                max_datasets=max_datasets,
            )
    except IntegrityError as error:
        raise ConfigError(f"there is a user {name!r} already") from error
    return token


def list_users(platform: Platform) -> list[User]:
    """All users by name; tokens cannot be read back."""
    with platform.database.read() as session:
        return store.load_users(session)


def renew_token(platform: Platform, *, name: str) -> str:
    """Gives a user another token; the old one ends within five seconds, the sessions of their browsers at once.

    Raises:
        ConfigError: there is no such user, or it is the first one.
    """
    _refuse_first(name, "its token is the configured one: change WATCHER_PLATFORM__TOKEN or its file")
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    hashed = platform.keys.hash_token(token)
    with platform.database.write() as session:
        user = _find(store.load_user_by_name(session, name=name), name)
        store.update_token(
            session,
            user_id=user.id,
            token_hash=hashed.hash,
            token_key=hashed.key_id,
            sessions_from_s=int(platform.clock.now_s()) + 1,
        )
    return token


def set_limits(
    platform: Platform, *, name: str, max_samples: int | None = None, max_datasets: int | None = None
) -> User:
    """Sets the limits that are given, 0 for none; they count within five seconds. Gives the user as they are now.

    Raises:
        ConfigError: there is no such user.
    """
    with platform.database.write() as session:
        user = _find(store.load_user_by_name(session, name=name), name)
        changed = replace(
            user,
            max_samples=user.max_samples if max_samples is None else max_samples or None,
            max_datasets=user.max_datasets if max_datasets is None else max_datasets or None,
        )
        store.update_limits(session, user=changed)
    return changed


def remove_user(platform: Platform, *, name: str) -> None:
    """Removes a user who owns no dataset any more, with their jobs at datasets of others and their configurations.

    Raises:
        ConfigError: there is no such user, it is the first one, or datasets of theirs are left.
    """
    _refuse_first(name, "the next start would make it again")
    try:
        with platform.database.write() as session:
            user = _find(store.load_user_by_name(session, name=name), name)
            first = _find(store.load_user_by_name(session, name=FIRST_USER), FIRST_USER)
            # What is left of their deleted datasets goes by itself, in whosever name.
            dataset_store.hand_over_deleted(session, user_id=user.id, to_user_id=first.id)
            n_owned = dataset_store.count_datasets(session, user_id=user.id)
            if n_owned:
                raise ConfigError(f"the user {name!r} still owns {n_owned} datasets: delete them first")
            job_store.delete_jobs_of(session, user_id=user.id)
            configuration_store.release_configurations(session, user_id=user.id)
            store.delete_user(session, user_id=user.id)
    except IntegrityError as error:
        raise ConfigError(f"the user {name!r} has made something just now: try again") from error


def share_dataset(platform: Platform, *, dataset_id: str, name: str, shared: bool = True) -> None:
    """Lets a user see and change a dataset that is not theirs, or ends that.

    Raises:
        ConfigError: there is no such user or dataset.
    """
    with platform.database.write() as session:
        user = _find(store.load_user_by_name(session, name=name), name)
        if dataset_store.load_dataset_by_id(session, dataset_id=dataset_id) is None:
            raise ConfigError(f"there is no dataset {dataset_id}")
        if shared:
            store.insert_share(session, dataset_id=dataset_id, user_id=user.id)
        else:
            store.delete_share(session, dataset_id=dataset_id, user_id=user.id)


def _refuse_first(name: str, reason: str) -> None:
    if name == FIRST_USER:
        raise ConfigError(f"the first user, {name!r}, is kept as it is: {reason}")


def _find(user: User | None, name: str) -> User:
    if user is None:
        raise ConfigError(f"there is no user {name!r}")
    return user
