"""Login with a token: a signed cookie names the user and the end of the session; the token itself is not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watcher.platform.secrets import is_id
from watcher.platform.store import users as user_store
from watcher.platform.store.users import User

if TYPE_CHECKING:
    from watcher.platform.context import Platform

COOKIE = "platform_session"
LIFE_S = 12 * 3600


def build_cookie(platform: Platform, user: User) -> str:
    """`user.expiry.signature`; its expiry ends it, or a new token for the user."""
    subject = f"{user.id}.{int(platform.clock.now_s()) + LIFE_S}"
    return f"{subject}.{platform.keys.sign_url(_message(subject))}"


def read_cookie(platform: Platform, cookie: str) -> User | None:
    """The user of a cookie that is genuine and not expired."""
    subject, _, signature = cookie.rpartition(".")
    user_id, _, expiry = subject.partition(".")
    genuine = platform.keys.is_url_signature(_message(subject), signature)
    if not genuine or not is_id(user_id) or int(expiry) < platform.clock.now_s():
        return None
    with platform.database.read() as session:
        user = user_store.load_user(session, user_id=user_id)
    if user is None or int(expiry) - LIFE_S < (user.sessions_from_s or 0):
        return None
    return user


def _message(subject: str) -> bytes:
    return b"COOKIE\n" + subject.encode("utf-8", "replace")
