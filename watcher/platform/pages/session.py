"""Login with a token: a signed cookie names the user and the end of the session; the token itself is not kept."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from watcher.platform.secrets import is_id
from watcher.platform.store import users as user_store
from watcher.platform.store.users import User

if TYPE_CHECKING:
    from watcher.platform.context import Platform

COOKIE = "platform_session"
LIFE_S = 12 * 3600
MAX_TOKEN = 1024


def find_by_token(platform: Platform, token: str) -> User | None:
    """The user of a token typed into the form."""
    if not token or len(token) > MAX_TOKEN:
        return None
    with platform.database.read() as session:
        return user_store.load_user_by_hash(session, token_hash=platform.keys.hash_token(token))


def build_cookie(platform: Platform, user: User) -> str:
    """`user.expiry.signature`; a new token for the user does not end it, its expiry does."""
    subject = f"{user.id}.{int(platform.clock.now_s()) + LIFE_S}"
    return f"{subject}.{_sign(platform, subject)}"


def read_cookie(platform: Platform, cookie: str) -> User | None:
    """The user of a cookie that is genuine and not expired."""
    subject, _, signature = cookie.rpartition(".")
    user_id, _, expiry = subject.partition(".")
    genuine = secrets.compare_digest(_sign(platform, subject).encode(), signature.encode("utf-8", "replace"))
    if not genuine or not is_id(user_id) or int(expiry) < platform.clock.now_s():
        return None
    with platform.database.read() as session:
        return user_store.load_user(session, user_id=user_id)


def _sign(platform: Platform, subject: str) -> str:
    return platform.keys.sign_url(b"COOKIE\n" + subject.encode("utf-8", "replace"))
