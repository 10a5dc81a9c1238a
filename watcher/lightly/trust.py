"""Whose certificates are believed: the one rule for all HTTP that the client and the daemon send."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from watcher.domain.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Trust:
    """Certificates are always checked, against these authorities.

    Attributes:
        usual: file or folder of authorities; True for those that come with `requests`.
        besides: file or folder of further ones, looked at anew for each connection, so that a renewed one counts.
    """

    usual: str | bool
    besides: str | None = None

    def read_besides(self) -> tuple[str | None, str | None]:
        """The further authorities: (text of the file, path of the folder).

        Raises:
            OSError: the file cannot be read at the moment.
        """
        if self.besides is None:
            return None, None
        path = Path(self.besides)
        return (
            (None, self.besides)
            if path.is_dir()
            else (path.read_text(encoding="ascii", errors="ignore"), None)
        )


def build_trust(*, only: str | None = None, besides: str | os.PathLike[str] | None = None) -> Trust:
    """The authorities for one receiver.

    Args:
        only: the receiver's own file or folder, which stands instead of all others.
        besides: file or folder named by `LIGHTLY_CA_CERTS`; counts besides the usual ones, which are those of
            `REQUESTS_CA_BUNDLE`, of `CURL_CA_BUNDLE`, or the ones that come with `requests`. So a private authority
            of the API does not take the public ones from buckets and receivers.

    Raises:
        ConfigError: a name leads to nothing.
    """
    if only:
        return Trust(_check(only, "CA_CERTS of this receiver"))
    usual: str | bool = True
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if os.environ.get(variable):
            usual = _check(os.environ[variable], variable)
            break
    return Trust(usual, _check(os.fspath(besides), "LIGHTLY_CA_CERTS") if besides else None)


def check_authorities(path: Path) -> None:
    """Opens what `LIGHTLY_CA_CERTS` names.

    Raises:
        ConfigError: it is not there, cannot be read, or is a file without a certificate.
    """
    _check(os.fspath(path), "LIGHTLY_CA_CERTS")
    if path.is_dir():
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except OSError as error:  # that of TLS is one too
        reason = "no certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(
            f"the trusted certificates in {str(path)!r} cannot be used ({reason}): LIGHTLY_CA_CERTS names a PEM file"
        ) from None


def _check(path: str, variable: str) -> str:
    if not Path(path).exists():
        raise ConfigError(f"no such file of trusted certificates: {path!r}; check {variable}")
    return path
