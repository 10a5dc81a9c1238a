"""Listings of S3-like buckets that hold keys which the driver of the store cannot name.

The driver parses a page of keys as a whole, and one key with an empty part (`a//b.jpg`) makes all of it fail. Here
each page is asked for by a signed ListObjectsV2, and every key is looked at by itself.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_plus, urlencode
from xml.etree import ElementTree as ET

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from watcher.platform.objects.signature import Scope, sign

if TYPE_CHECKING:
    from obstore.store import S3Credential

    from watcher.domain.clock import Clock

# What obstore's paths refuse or change: empty and dot parts, slashes at the ends, control characters.
_UNREADABLE = re.compile(r"[\x00-\x1f\x7f]|(?:^|/)\.{0,2}(?:/|$)")
_EMPTY = hashlib.sha256(b"").hexdigest()
_TIMEOUT_S = (10.0, 30.0)
_MAX_PAGE_S = 60.0
# A thousand keys of 1,024 bytes take 3 MiB when quoted.
_MAX_PAGE_BYTES = 16 * 1024 * 1024
_PIECE = 64 * 1024
_RETRY = Retry(
    total=3,
    redirect=0,
    backoff_factor=0.2,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=("GET",),
    raise_on_status=False,
    respect_retry_after_header=False,
)


def is_readable(name: str) -> bool:
    """Whether the driver can name an object so; if not, it refuses the name or takes it for another."""
    return _UNREADABLE.search(name) is None


@dataclass(frozen=True, slots=True)
class Place:
    """A prefix of a bucket of S3's family; without an endpoint it is Amazon's."""

    bucket: str
    prefix: str
    region: str
    endpoint: str | None

    @property
    def url(self) -> str:
        """Address of the bucket, in the style that the driver uses for it."""
        if self.endpoint is None:
            return f"https://{self.bucket}.s3.{self.region}.amazonaws.com/"
        return f"{self.endpoint.rstrip('/')}/{self.bucket}"

    def configure(self) -> dict[str, Any]:
        """Settings of the driver."""
        config: dict[str, Any] = {
            "region": self.region,
            "virtual_hosted_style_request": self.endpoint is None,
        }
        if self.endpoint is not None:
            config["endpoint"] = self.endpoint
        return config

    @property
    def full_path(self) -> str:
        """Bucket and prefix."""
        return f"{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True, slots=True)
class Key:
    """An object as listed; its name is relative to the prefix."""

    name: str
    modified_s: int
    size: int


class BucketKeys:
    """The keys below a prefix of a bucket, in the order of their bytes."""

    def __init__(self, place: Place, *, load: Callable[[], S3Credential], clock: Clock) -> None:
        """Connects to nothing yet.

        Args:
            place: the prefix.
            load: gives the credentials, before each page.
            clock: for the signature.
        """
        self.place = place
        self._prefix = f"{place.prefix}/" if place.prefix else ""
        self._load = load
        self._clock = clock

    def read(self, after: str = "") -> Iterator[Key]:
        """All keys, or those behind a name; holds one page of at most a thousand.

        Raises:
            PermissionError: the store refused the credentials.
            FileNotFoundError: there is no such bucket.
            OSError: the store does not answer, or with something that is no listing.
        """
        query = {"encoding-type": "url", "list-type": "2", "max-keys": "1000", "prefix": self._prefix}
        if after:
            query["start-after"] = self._prefix + after
        with requests.Session() as session:
            for scheme in ("https://", "http://"):
                session.mount(scheme, HTTPAdapter(max_retries=_RETRY))
            token = ""
            while True:
                keys, following = self._parse(self._fetch(session, query))
                yield from keys
                if not following:
                    return
                if following == token:
                    raise OSError("the listing of the bucket does not go on")
                token = following
                query.pop("start-after", None)
                query["continuation-token"] = token

    def _fetch(self, session: requests.Session, query: Mapping[str, str]) -> bytes:
        credential = self._load()
        text = urlencode(sorted(query.items()), quote_via=quote, safe="")
        url = f"{self.place.url}?{text}"
        headers = {"x-amz-content-sha256": _EMPTY}
        if credential.get("token"):
            headers["x-amz-security-token"] = str(credential["token"])
        scope = Scope("s3", self.place.region, credential["access_key_id"], credential["secret_access_key"])
        now = dt.datetime.fromtimestamp(self._clock.now_s(), dt.UTC)
        headers = sign("GET", url, headers, digest=_EMPTY, scope=scope, now=now)
        try:
            # The empty auth keeps a .netrc from taking the place of the signature.
            with session.get(
                url,
                headers=headers,
                auth=lambda request: request,
                timeout=_TIMEOUT_S,
                allow_redirects=False,
                stream=True,
            ) as response:
                body = _read(response)
        except (requests.RequestException, HTTPError) as error:
            raise OSError(f"the listing broke off ({type(error).__name__})") from error
        if response.status_code in (401, 403):
            raise PermissionError(response.status_code, "refused")
        if response.status_code == 404:
            raise FileNotFoundError(response.status_code, "no such bucket")
        if response.status_code != 200:
            raise OSError(f"the listing was answered with status {response.status_code}")
        return body

    def _parse(self, body: bytes) -> tuple[list[Key], str]:
        parser = ET.XMLParser(target=_Builder())  # noqa: S314 - no document type, so no entities; the size is bounded
        try:
            parser.feed(body)
            root = parser.close()
            if _local(root) != "ListBucketResult":
                raise ValueError("not a listing")  # noqa: TRY301 - all that cannot be read is told the same
            plain = {_local(part): part.text or "" for part in root}
            decode = unquote_plus if plain.get("EncodingType") == "url" else str
            keys = []
            for part in root:
                if _local(part) == "Contents":
                    fields = {_local(field): field.text or "" for field in part}
                    modified = dt.datetime.fromisoformat(fields["LastModified"])
                    name = decode(fields["Key"])
                    if not name.startswith(self._prefix):
                        raise ValueError("a key that was not asked for")  # noqa: TRY301 - as above
                    name = name.removeprefix(self._prefix)
                    keys.append(Key(name, max(0, int(modified.timestamp())), int(fields["Size"])))
            if plain.get("IsTruncated") == "true":
                return keys, plain["NextContinuationToken"]
        except (ET.ParseError, KeyError, ValueError) as error:
            raise OSError("the store gave a listing that cannot be read") from error
        return keys, ""


class _Builder(ET.TreeBuilder):
    """Elements without a document type, where entities would be declared."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        del name, pubid, system
        raise ValueError("a document type")


def _local(part: ET.Element) -> str:
    return part.tag.rpartition("}")[2]


def _read(response: requests.Response) -> bytes:
    end = time.monotonic() + _MAX_PAGE_S
    body = bytearray()
    while piece := response.raw.read1(_PIECE, decode_content=True):
        body += piece
        if len(body) > _MAX_PAGE_BYTES or time.monotonic() > end:
            raise OSError("a page of the listing is too long or too slow")
    return bytes(body)
