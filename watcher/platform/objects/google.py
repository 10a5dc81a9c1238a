"""Signed read URLs of Google Cloud Storage, made with the key of a service account; asks nobody.

Source: Google Cloud Storage, "V4 signing process" (GOOG4-RSA-SHA256).
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from watcher.platform.faults import Fault, invalid

if TYPE_CHECKING:
    from watcher.domain.clock import Clock

_HOST = "https://storage.googleapis.com"
_ALGORITHM = "GOOG4-RSA-SHA256"
_LONGEST_S = 7 * 24 * 3600
_SMALLEST_BITS = 2048
_LARGEST_BITS = 8192


class GoogleSigner:
    """Signs reads of the objects below a prefix of a bucket.

    With a key of 2,048 bits each takes about 0.25 ms of processor time, mostly under the interpreter's lock.
    """

    def __init__(
        self, *, email: str, private_key: str, place: tuple[str, str], endpoint: str | None, clock: Clock
    ) -> None:
        """Reads the key.

        Args:
            email: of the service account.
            private_key: PEM.
            place: the bucket, and the prefix before each name, empty or without slashes at its ends.
            endpoint: where the store is instead of at Google.
            clock: reads the time.

        Raises:
            Fault: it is no RSA key in PEM form of 2,048 to 8,192 bits.
        """
        self._email = email
        self._base = (endpoint or _HOST).rstrip("/")
        self._path = "".join(f"/{part}" for part in place if part) + "/"
        self._clock = clock
        self._key = _load_key(private_key)

    def __call__(self, names: Sequence[str], ttl_s: int) -> list[str]:
        """A URL for each name, good for the given time, a week at the most."""
        now = dt.datetime.fromtimestamp(self._clock.now_s(), dt.UTC)
        date = now.strftime("%Y%m%dT%H%M%SZ")
        scope = f"{date[:8]}/auto/storage/goog4_request"
        query = urlencode(
            {
                "X-Goog-Algorithm": _ALGORITHM,
                "X-Goog-Credential": f"{self._email}/{scope}",
                "X-Goog-Date": date,
                "X-Goog-Expires": min(ttl_s, _LONGEST_S),
                "X-Goog-SignedHeaders": "host",
            },
            quote_via=quote,
            safe="",
        )
        end = f"\n{query}\nhost:{urlsplit(self._base).netloc}\n\nhost\nUNSIGNED-PAYLOAD"
        urls = []
        for name in names:
            path = quote(self._path + name, safe="/~")
            digest = hashlib.sha256(f"GET\n{path}{end}".encode()).hexdigest()
            text = f"{_ALGORITHM}\n{date}\n{scope}\n{digest}"
            signature = self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()).hex()
            urls.append(f"{self._base}{path}?{query}&X-Goog-Signature={signature}")
        return urls


@functools.lru_cache(maxsize=64)
def _load_key(private_key: str) -> rsa.RSAPrivateKey:
    """The key, checked; that takes some 50 ms, so the newest are kept."""
    try:
        key = serialization.load_pem_private_key(private_key.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise _refuse() from error
    if not isinstance(key, rsa.RSAPrivateKey) or not _SMALLEST_BITS <= key.key_size <= _LARGEST_BITS:
        raise _refuse()
    return key


def _refuse() -> Fault:
    return invalid(
        "private_key in gcsCredentials is no RSA key in PEM form of at least 2048 bits",
        "DATASET_DATASOURCE_CREDENTIALS_ERROR",
    )
