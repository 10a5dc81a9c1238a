"""How a command finds the running daemon: its address and a token of this run, in a file of the data directory."""

from __future__ import annotations

import hashlib
import os
import ssl
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import requests
from requests.adapters import HTTPAdapter

from watcher.domain.errors import ConfigError, NotSentError, WatcherError
from watcher.ops.changes import Wanted

_FILE = "control.json"
_PEM_BEGIN = "-----BEGIN CERTIFICATE-----"
_PEM_END = "-----END CERTIFICATE-----"
_LIMIT_S = 10.0
_NOTHING = Wanted()


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """Address and token of a running daemon; the file is readable by its owner alone and ends with the daemon."""

    url: str
    token: str
    cert_file: str | None = None

    def write(self, data_dir: Path) -> None:
        """Makes the file anew."""
        path = data_dir / _FILE
        temporary = path.with_name(f".{_FILE}")
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(self))
        temporary.replace(path)

    @staticmethod
    def read(data_dir: Path) -> Control:
        """Reads the file.

        Raises:
            ConfigError: there is none, or this user may not read it.
        """
        path = data_dir / _FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=Control)
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigError(
                f"a daemon works on this store, but {path} does not tell how to reach it ({error}): run the command as "
                "the daemon's user and with its WATCHER_DATA_DIR"
            ) from None

    @staticmethod
    def remove(data_dir: Path) -> None:
        """Takes the file away."""
        (data_dir / _FILE).unlink(missing_ok=True)

    def request(self, watch: str, verb: str, *, actor: str = "", wanted: Wanted = _NOTHING) -> str:
        """Asks the daemon for a change.

        Args:
            watch: name of the watch.
            verb: poll, audit, pause, resume, rewind, replay or drop.
            actor: who wants it.
            wanted: what it is about.

        Returns:
            What the daemon says it did.

        Raises:
            ConfigError: the daemon refuses; the text is its own.
            WatcherError: it cannot now, since its store does not answer.
            NotSentError: it cannot be reached.
        """
        given = {"actor": actor, **asdict(wanted)}
        body = {name: value for name, value in given.items() if value is not None}
        try:
            with requests.Session() as session:
                session.trust_env = False
                if self.cert_file is not None:
                    session.mount("https://", _Pinned(self.cert_file))
                    session.verify = False  # no authority is asked: the fingerprint decides
                answer = session.post(
                    f"{self.url}/api/v1/watches/{watch}/{verb}",
                    headers={"Authorization": f"Bearer {self.token}"},
                    json=body,
                    timeout=_LIMIT_S,
                )
                told = answer.json()
        except (requests.RequestException, OSError, ValueError) as error:
            raise NotSentError(f"the daemon at {self.url} does not answer ({type(error).__name__})") from None
        if answer.status_code >= 300:
            text = str(told.get("error", f"the daemon answered {answer.status_code}"))
            raise WatcherError(text) if answer.status_code >= 500 else ConfigError(text)
        return str(told["status"])


class _Pinned(HTTPAdapter):
    """Trusts the daemon's own certificate and no other: on this machine it is not reached by the name that is in it."""

    def __init__(self, cert_file: str) -> None:
        pem = Path(cert_file).read_text(encoding="ascii")
        first = pem[: pem.index(_PEM_END) + len(_PEM_END)]
        self._fingerprint = hashlib.sha256(
            ssl.PEM_cert_to_DER_cert(first[first.index(_PEM_BEGIN) :])
        ).hexdigest()
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        super().init_poolmanager(
            *arguments,
            **named,
            assert_fingerprint=self._fingerprint,
            assert_hostname=False,
            cert_reqs="CERT_NONE",
        )
