"""URLs of databases, and the user and password that new connections are opened with."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from watcher.domain.errors import ConfigError


def read_url(url: str) -> URL:
    """The URL in its parts, with the driver that this package uses.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):  # the cause may quote the URL with its password: no chain
        raise ConfigError(
            "the store URL cannot be read: write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME, with "
            "special characters of the password percent-encoded"
        ) from None
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed


class Credentials:
    """The user and password of an engine's URL, until others take their place."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._named: dict[str, str] = {}

    @property
    def named(self) -> dict[str, str]:
        """User and password that took the place of the URL's, as arguments of psycopg; empty while none did."""
        return dict(self._named)

    def replace(self, url: str) -> None:
        """Opens new connections with the user and the password of the URL; open ones stay as they are.

        Raises:
            ConfigError: the URL leads to another database, which needs a restart.
        """
        parsed = read_url(url)
        if parsed.set(username=self._url.username, password=self._url.password) != self._url:
            raise ConfigError(
                "the store URL now leads to another database: restart, since only its user and password are taken up"
            )
        given = {"user": parsed.username, "password": parsed.password}
        self._named = {name: value for name, value in given.items() if value is not None}

    def fill_in(self, _dialect: object, _record: object, _arguments: object, named: dict[str, Any]) -> None:
        """Called by the engine before it connects."""
        named.update(self._named)
