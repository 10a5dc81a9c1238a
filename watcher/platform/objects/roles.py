"""Temporary credentials of roles, as `S3DelegatedAccess` datasources name them.

The server assumes the role with its own access key and the external id of the datasource, by one signed call of the
store's token service (STS, version 2011-06-15, signature version 4), and renews the credentials before they end.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import requests

from watcher.platform.faults import Fault, invalid, unavailable
from watcher.platform.objects.signature import Scope, sign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore.store import S3Credential

    from watcher.domain.clock import Clock
    from watcher.platform.settings import PlatformConfig

_SESSION = "datasource-watcher"
_SESSION_S = 3600
# A read URL ends with the credentials that signed it, so these never have less than that to live.
_RENEW_BEFORE_S = 900
_TIMEOUT_S = (10.0, 30.0)
_MAX_ANSWER_BYTES = 64 * 1024
_MAX_ROLES = 1024
_TYPE = "application/x-www-form-urlencoded; charset=utf-8"
_CREDENTIALS = "DATASET_DATASOURCE_CREDENTIALS_ERROR"
_NO_IDENTITY = (
    "this server has no identity to assume roles with: its operator sets WATCHER_PLATFORM__ROLE_ACCESS_KEY_ID and "
    "WATCHER_PLATFORM__ROLE_SECRET_ACCESS_KEY, or you use a datasource of type S3 with an access key"
)


@dataclass(frozen=True, slots=True)
class Role:
    """What a datasource names; credentials are shared by all datasources that name the same."""

    arn: str
    external_id: str
    region: str


class RoleSessions:
    """The credentials of the roles in use, at most 1,024; safe to share between threads."""

    def __init__(self, config: PlatformConfig, clock: Clock) -> None:
        self._sts_endpoint = config.sts_endpoint
        self._key_id, self._secret = config.role_access_key_id, config.role_secret_access_key
        self._clock = clock
        self._lock = threading.Lock()
        self._found: dict[Role, S3Credential] = {}

    def replace_identity(self, *, key_id: str | None = None, secret: str | None = None) -> None:
        """Assumes roles with another access key from now on; what is not given stays."""
        self._key_id, self._secret = key_id or self._key_id, secret or self._secret

    def load(self, role: Role) -> S3Credential:
        """Credentials good for a quarter of an hour at the least; asks the token service if there are none.

        Raises:
            Fault: the role cannot be assumed.
        """
        with self._lock:
            found = self._found.get(role)
        now = dt.datetime.fromtimestamp(self._clock.now_s(), dt.UTC)
        if found is not None and _get_end(found) - now > dt.timedelta(seconds=_RENEW_BEFORE_S):
            return found
        fresh = self._assume(role, now)
        with self._lock:
            if len(self._found) >= _MAX_ROLES:
                self._found.clear()
            self._found[role] = fresh
        return fresh

    def _assume(self, role: Role, now: dt.datetime) -> S3Credential:
        key_id, secret = self._key_id, self._secret
        if not key_id or not secret:
            raise invalid(_NO_IDENTITY, "DATASET_DATASOURCE_ACTION_NOT_IMPLEMENTED")
        url = (self._sts_endpoint or f"https://sts.{role.region}.amazonaws.com").rstrip("/") + "/"
        body = urlencode(
            {
                "Action": "AssumeRole",
                "Version": "2011-06-15",
                "RoleArn": role.arn,
                "RoleSessionName": _SESSION,
                "ExternalId": role.external_id,
                "DurationSeconds": _SESSION_S,
            }
        ).encode()
        headers = sign_request(url, body, region=role.region, key_id=key_id, secret=secret, now=now)
        try:
            with requests.post(
                url, data=body, headers=headers, timeout=_TIMEOUT_S, allow_redirects=False, stream=True
            ) as response:
                answer = response.raw.read(_MAX_ANSWER_BYTES, decode_content=True)
        except (requests.RequestException, OSError) as error:
            raise unavailable(
                f"the token service of the region {role.region} does not answer ({type(error).__name__}): try again"
            ) from error
        if response.status_code != 200:
            raise _explain(response.status_code, answer)
        return _read_credentials(answer)


def sign_request(
    url: str, body: bytes, *, region: str, key_id: str, secret: str, now: dt.datetime
) -> Mapping[str, str]:
    """The headers of a signed POST to the token service."""
    scope = Scope("sts", region, key_id, secret)
    digest = hashlib.sha256(body).hexdigest()
    return sign("POST", url, {"content-type": _TYPE}, digest=digest, scope=scope, now=now)


def _read_credentials(answer: bytes) -> S3Credential:
    try:
        # The operator's own token service answers here, and the size is bounded.
        parts = {part.tag.rpartition("}")[2]: part.text or "" for part in ET.fromstring(answer).iter()}  # noqa: S314 - see above
        return {
            "access_key_id": parts["AccessKeyId"],
            "secret_access_key": parts["SecretAccessKey"],
            "token": parts["SessionToken"],
            "expires_at": dt.datetime.fromisoformat(parts["Expiration"]),
        }
    except (ET.ParseError, KeyError, ValueError) as error:
        raise unavailable("the token service gave an answer that cannot be read: try again") from error


def _explain(status: int, answer: bytes) -> Fault:
    if status >= 500 or status == 429:
        return unavailable(f"the token service failed with status {status}: try again")
    code = answer.partition(b"<Code>")[2].partition(b"</Code>")[0].decode("ascii", "replace")[:60]
    return invalid(
        f"the role cannot be assumed ({code or status}): its trust policy must name this server's account and the "
        "external id of the datasource",
        _CREDENTIALS,
    )


def _get_end(credential: S3Credential) -> dt.datetime:
    end = credential["expires_at"]
    if end is None:
        raise LookupError("credentials of a role without an end")
    return end
