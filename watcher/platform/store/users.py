"""Users and whom a dataset is shared with. Tokens are kept as keyed hashes only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.orm import Session

from watcher.platform.store.tables import shares, users


@dataclass(frozen=True, slots=True)
class User:
    """A user.

    Attributes:
        max_samples: limit of each dataset; None for the platform's own.
        max_datasets: None for no limit.
        token_key: id of the key that the token was hashed with; None if an earlier release hashed it.
        sessions_from_s: sessions of browsers that began before this second have ended; None if all count.
    """

    id: str
    name: str
    max_samples: int | None
    max_datasets: int | None
    token_key: str | None
    sessions_from_s: int | None


_COLUMNS = (
    users.c.id,
    users.c.name,
    users.c.max_samples,
    users.c.max_datasets,
    users.c.token_key,
    users.c.sessions_from_s,
)


def _to_user(row: Row[Any, Any, Any, Any, Any, Any]) -> User:
    return User(*row)


def load_user_by_hashes(session: Session, *, token_hashes: Collection[str]) -> User | None:
    """The user with the token that has one of these hashes, a key each."""
    row = session.execute(select(*_COLUMNS).where(users.c.token_hash.in_(token_hashes))).first()
    return _to_user(row) if row else None


def load_user_by_name(session: Session, *, name: str) -> User | None:
    """The user of that name."""
    row = session.execute(select(*_COLUMNS).where(users.c.name == name)).first()
    return _to_user(row) if row else None


def load_max_samples(session: Session, *, user_id: str) -> int | None:
    """The limit of each dataset of that user; None for the platform's own."""
    return session.execute(select(users.c.max_samples).where(users.c.id == user_id)).scalar_one_or_none()


def load_users(session: Session) -> list[User]:
    """All users by name."""
    return [_to_user(row) for row in session.execute(select(*_COLUMNS).order_by(users.c.name))]


def insert_user(
    session: Session,
    *,
    user_id: str,
    name: str,
    token_hash: str,
    token_key: str,
    now_ms: int,
    max_samples: int | None = None,
    max_datasets: int | None = None,
) -> None:
    """Adds a user."""
    session.execute(
        insert(users).values(
            id=user_id,
            name=name,
            token_hash=token_hash,
            token_key=token_key,
            created_at=now_ms,
            max_samples=max_samples,
            max_datasets=max_datasets,
        )
    )


def update_token(
    session: Session,
    *,
    user_id: str,
    token_hash: str,
    token_key: str,
    sessions_from_s: int,
) -> None:
    """Gives the user another token; the old one ends at once, and so do the sessions that began before that second."""
    query = update(users).where(users.c.id == user_id)
    values = {"token_hash": token_hash, "token_key": token_key, "sessions_from_s": sessions_from_s}
    session.execute(query.values(**values))


def update_token_hash(
    session: Session, *, user_id: str, token_hash: str, token_key: str, instead_of: Collection[str]
) -> None:
    """Keeps the same token by another hash, in the place of one of these: a token given meanwhile stays."""
    query = update(users).where(users.c.id == user_id, users.c.token_hash.in_(instead_of))
    session.execute(query.values(token_hash=token_hash, token_key=token_key))


def update_limits(session: Session, *, user: User) -> None:
    """Keeps the user's limits as they are given."""
    values = {"max_samples": user.max_samples, "max_datasets": user.max_datasets}
    session.execute(update(users).where(users.c.id == user.id).values(**values))


def insert_share(session: Session, *, dataset_id: str, user_id: str) -> None:
    """Shares a dataset; harmless if it is shared already."""
    delete_share(session, dataset_id=dataset_id, user_id=user_id)
    session.execute(insert(shares).values(dataset_id=dataset_id, user_id=user_id))


def delete_share(session: Session, *, dataset_id: str, user_id: str) -> None:
    """Ends sharing."""
    session.execute(delete(shares).where(shares.c.dataset_id == dataset_id, shares.c.user_id == user_id))


def load_names_of_shares(session: Session, *, dataset_id: str) -> list[str]:
    """Names of the users whom a dataset is shared with, sorted."""
    query = (
        select(users.c.name)
        .join(shares, shares.c.user_id == users.c.id)
        .where(shares.c.dataset_id == dataset_id)
        .order_by(users.c.name)
    )
    return list(session.execute(query).scalars())


def load_ids_by_names(session: Session, *, names: Collection[str]) -> dict[str, str]:
    """Ids of those users that exist, by name; at most some thousand names at once."""
    query = select(users.c.name, users.c.id).where(users.c.name.in_(names))
    return {row[0]: row[1] for row in session.execute(query)}


def replace_shares(session: Session, *, dataset_id: str, user_ids: Collection[str]) -> None:
    """Shares a dataset with these users and no others."""
    session.execute(delete(shares).where(shares.c.dataset_id == dataset_id))
    rows = [{"dataset_id": dataset_id, "user_id": user_id} for user_id in sorted(user_ids)]
    if rows:
        session.execute(insert(shares), rows)


def load_user(session: Session, *, user_id: str) -> User | None:
    """The user of that id."""
    row = session.execute(select(*_COLUMNS).where(users.c.id == user_id)).first()
    return _to_user(row) if row else None


def delete_user(session: Session, *, user_id: str) -> None:
    """Removes a user who owns no dataset; fails on the database's own rules otherwise."""
    session.execute(delete(users).where(users.c.id == user_id))
