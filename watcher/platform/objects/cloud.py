"""Datasources in buckets: S3, Google Cloud Storage, Azure Blob Storage, and S3-compatible stores.

Nothing that a caller configures decides which host is asked: account names, regions and credentials are checked
letter by letter, and an endpoint of one's own must be on the operator's list.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast

import msgspec
import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from watcher.domain.redaction import redact
from watcher.lightly.wire.datasources import (
    DatasourceAzure,
    DatasourceGCS,
    DatasourceOBS,
    DatasourceS3,
    DatasourceS3DelegatedAccess,
)
from watcher.logs import get_logger
from watcher.platform.blobs import OpenBlob
from watcher.platform.faults import Fault, invalid
from watcher.platform.objects.base import HIDDEN_FOLDER, is_listed
from watcher.platform.objects.google import GoogleSigner
from watcher.platform.objects.roles import Role, RoleSessions
from watcher.platform.objects.s3keys import BucketKeys, Place, is_readable
from watcher.platform.settings import PlatformConfig

if TYPE_CHECKING:
    from obstore.store import ObjectStore, S3Credential

    from watcher.domain.clock import Clock

CloudSettings = DatasourceS3 | DatasourceS3DelegatedAccess | DatasourceGCS | DatasourceAzure | DatasourceOBS
_log = get_logger(__name__)
_INVALID = "DATASET_DATASOURCE_INVALID"
_CREDENTIALS = "DATASET_DATASOURCE_CREDENTIALS_ERROR"
_REGION = re.compile(r"[a-z]{2}(-[a-z]+){1,2}(-[0-9]{1,2})?")
_BUCKET = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,220}[a-zA-Z0-9]")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_SCHEMES = ("s3://", "gs://", "az://", "azure://", "obs://")
_TOKEN_URIS = ("https://oauth2.googleapis.com/token", "https://accounts.google.com/o/oauth2/token")
_GCS_FIELDS = ("private_key", "private_key_id", "client_email")
_PLAIN = re.compile(r"[A-Za-z0-9_.~/-]+")
_CHUNK = 1000
_EXAMPLE = 100
_CLIENT = {"timeout": "60s", "connect_timeout": "10s"}
_RETRY = {"max_retries": 3, "retry_timeout": dt.timedelta(seconds=60)}


def split_path(full_path: str) -> tuple[str, str]:
    """Bucket and prefix; the scheme may stand before them.

    Raises:
        Fault: there is no proper bucket name.
    """
    path = next((full_path[len(scheme) :] for scheme in _SCHEMES if full_path.startswith(scheme)), full_path)
    bucket, _, prefix = path.strip("/").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise invalid("fullPath must be the name of a bucket and a path in it", _INVALID)
    if "\0" in prefix or any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
        raise invalid("the path in fullPath must have no empty and no dot parts", _INVALID)
    return bucket, prefix


def build_cloud_source(
    settings: CloudSettings, config: PlatformConfig, *, roles: RoleSessions, clock: Clock
) -> CloudSource:
    """Checks a configuration and prepares its store; connects to nothing.

    Raises:
        Fault: a part of it is malformed or not allowed.
    """
    bucket, prefix = split_path(settings.full_path)
    common: dict[str, Any] = {"prefix": prefix or None, "retry_config": _RETRY}
    try:
        if isinstance(settings, DatasourceS3 | DatasourceS3DelegatedAccess) and not _REGION.fullmatch(
            settings.s3_region
        ):
            raise invalid("s3Region is not the name of a region", _INVALID)
        if isinstance(settings, DatasourceS3DelegatedAccess):
            role = Role(settings.s3_arn, settings.s3_external_id, settings.s3_region)
            place = Place(bucket, prefix, role.region, config.s3_endpoint)
            return _build_delegated(place, lambda: roles.load(role), clock, common)
        if isinstance(settings, DatasourceS3):
            keys = (settings.s3_access_key_id, settings.s3_secret_access_key)
            place = Place(bucket, prefix, settings.s3_region, config.s3_endpoint)
            return _build_s3(place, keys, clock, common)
        if isinstance(settings, DatasourceOBS):
            if settings.obs_endpoint.rstrip("/") not in config.datasource_endpoints:
                raise invalid("the operator of this server has not allowed that endpoint", _INVALID)
            keys = (settings.obs_access_key_id, settings.obs_secret_access_key)
            place = Place(bucket, prefix, "us-east-1", settings.obs_endpoint)
            return _build_s3(place, keys, clock, common)
        if isinstance(settings, DatasourceGCS):
            return _build_gcs((bucket, prefix), settings, config.gcs_endpoint, clock, common)
        return _build_azure(bucket, settings, config.azure_endpoint, common)
    except BaseError as error:
        raise _explain(error) from error


def _client(endpoint: str | None) -> Any:
    return {**_CLIENT, "allow_http": endpoint is not None and endpoint.startswith("http://")}


def _build_s3(place: Place, keys: tuple[str, str], clock: Clock, common: dict[str, Any]) -> CloudSource:
    config: Any = {"access_key_id": keys[0], "secret_access_key": keys[1], **place.configure()}
    credential: S3Credential = {
        "access_key_id": keys[0],
        "secret_access_key": keys[1],
        "token": None,
        "expires_at": None,
    }
    store = S3Store(place.bucket, config=config, client_options=_client(place.endpoint), **common)
    return CloudSource(store, keys=BucketKeys(place, load=lambda: credential, clock=clock))


def _build_delegated(
    place: Place, load: Callable[[], S3Credential], clock: Clock, common: dict[str, Any]
) -> CloudSource:
    config: Any = place.configure()
    store = S3Store(
        place.bucket,
        config=config,
        client_options=_client(place.endpoint),
        credential_provider=load,
        **common,
    )
    return CloudSource(store, prepare=load, keys=BucketKeys(place, load=load, clock=clock))


def _build_gcs(
    place: tuple[str, str],
    settings: DatasourceGCS,
    endpoint: str | None,
    clock: Clock,
    common: dict[str, Any],
) -> CloudSource:
    try:
        account = msgspec.json.decode(settings.gcs_credentials, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise invalid("gcsCredentials is not the JSON of a service account", _CREDENTIALS) from error
    # Other kinds name files, commands and addresses; so does gcs_base_url.
    if account.get("type") != "service_account":
        raise invalid("gcsCredentials must be of a service account", _CREDENTIALS)
    if account.get("token_uri", _TOKEN_URIS[0]) not in _TOKEN_URIS:
        raise invalid("token_uri in gcsCredentials is not Google's", _CREDENTIALS)
    plain: dict[str, Any] = {name: account.get(name, "") for name in _GCS_FIELDS}
    if not all(isinstance(value, str) and value for value in plain.values()):
        raise invalid(f"gcsCredentials lacks one of {', '.join(_GCS_FIELDS)}", _CREDENTIALS)
    sign = GoogleSigner(
        email=plain["client_email"],
        private_key=plain["private_key"],
        place=place,
        endpoint=endpoint,
        clock=clock,
    )
    if endpoint is not None:
        plain.update(gcs_base_url=endpoint, disable_oauth=True)
    config: Any = {"service_account_key": msgspec.json.encode(plain).decode()}
    store = GCSStore(place[0], config=config, client_options=_client(endpoint), **common)
    return CloudSource(store, sign=sign)


def _build_azure(
    container: str, settings: DatasourceAzure, endpoint: str | None, common: dict[str, Any]
) -> CloudSource:
    if not _ACCOUNT.fullmatch(settings.account_name):
        raise invalid("accountName must have 3 to 24 small letters and digits", _INVALID)
    config: Any = {"account_name": settings.account_name, "container_name": container}
    # A shared access signature cannot be narrowed to one object, so it is never given out.
    is_signature = "sig=" in settings.account_key
    config["sas_key" if is_signature else "account_key"] = settings.account_key.removeprefix("?")
    if endpoint is not None:
        config["endpoint"] = f"{endpoint.rstrip('/')}/{settings.account_name}"
        config["use_emulator"] = False
    return CloudSource(
        AzureStore(config=config, client_options=_client(endpoint), **common),
        can_sign=not is_signature,
        # obstore 0.12 signs the encoded path, Azure checks the decoded one.
        plain_only=True,
    )


def _explain(error: Exception) -> Fault:
    text = str(error)
    kinds = (PermissionDeniedError, UnauthenticatedError, PermissionError)
    # A refused listing comes without a class of its own.
    if isinstance(error, kinds) or "403 Forbidden" in text or "401 Unauthorized" in text:
        return invalid("the store refused the credentials: check them and their rights", _CREDENTIALS)
    if isinstance(error, (NotFoundError, FileNotFoundError)):
        return invalid("the store has no such bucket", _INVALID)
    if isinstance(error, InvalidPathError):
        reason = text.partition(chr(10))[0].removeprefix("Encountered object with invalid path: ")
        return invalid(
            f"a key of the bucket cannot be read ({redact(reason)[:1200]}): rename or delete it, or narrow fullPath",
            _INVALID,
        )
    # The driver's texts hold addresses with their queries, and tell more than a user needs.
    return invalid(f"the store cannot be used: {redact(text).partition(chr(10))[0][:200]}", _INVALID)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise _explain(error) from error


class CloudSource:
    """The objects below a prefix of a bucket."""

    def __init__(
        self,
        store: S3Store | GCSStore | AzureStore,
        *,
        can_sign: bool = True,
        plain_only: bool = False,
        prepare: Callable[[], object] | None = None,
        keys: BucketKeys | None = None,
        sign: Callable[[Sequence[str], int], Sequence[str]] | None = None,
    ) -> None:
        """Connects to nothing yet.

        Args:
            store: the bucket.
            can_sign: the credentials can make URLs.
            plain_only: for plain names alone.
            keys: lists in place of the store where that finds a key it cannot name.
            sign: makes the URLs in place of the store: names and seconds to URLs.
            prepare: is called before each use; its refusal is clearer than what the store would make of it.
        """
        self._opened = store
        self._prepare = prepare
        self._keys = keys
        self._sign = sign
        self._can_sign = can_sign
        self._plain_only = plain_only

    @property
    def signs_slowly(self) -> bool:
        """Whether a URL costs a signature by RSA, a hundred times as much as one by a shared key."""
        return self._sign is not None

    @property
    def _store(self) -> S3Store | GCSStore | AzureStore:
        if self._prepare is not None:
            self._prepare()
        return self._opened

    def scan(self, *, from_s: int, to_s: int) -> Iterator[tuple[int, str]]:
        """Lists the whole prefix, since no store lists by time; a thousand objects in memory at once."""
        n_unreadable, example = 0, ""
        for second, name in self._list():
            if not from_s <= second <= to_s or not name or not is_listed(name):
                continue
            if is_readable(name):
                yield second, name
            else:
                n_unreadable, example = n_unreadable + 1, example or name[:_EXAMPLE]
        if n_unreadable and self._keys is not None:
            _log.warning(
                "datasource.names_skipped",
                count=n_unreadable,
                reason="not readable",
                folder=self._keys.place.full_path,
                example=repr(example),
            )

    def _list(self) -> Iterator[tuple[int, str]]:
        """Time and name of each object; from the first page that the driver cannot read on, also names it refuses."""
        with _translated():
            before, last = "", ""
            try:
                for chunk in obstore.list(self._store, chunk_size=_CHUNK):
                    for entry in chunk:
                        yield max(0, int(entry["last_modified"].timestamp())), entry["path"]
                    before, last = chunk[-2]["path"] if len(chunk) > 1 else last, chunk[-1]["path"]
            except InvalidPathError:
                if self._keys is None:
                    raise
            else:
                return
            # The driver cuts the slash off a folder's marker: only `d/` can come behind `d-x`.
            for key in self._keys.read(f"{last}/" if before > last else last):
                if key.size or not key.name.endswith("/"):
                    yield key.modified_s, key.name

    def open(self, name: str) -> OpenBlob | None:
        """Opens an object for reading in pieces."""
        if not is_readable(name):
            return None
        try:
            with _translated_unless_missing():
                return open_object(self._store, name)
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        if not is_readable(name):
            return False
        try:
            with _translated_unless_missing():
                obstore.head(self._store, name)
        except FileNotFoundError:
            return False
        return True

    def sign_reads(self, names: Sequence[str], *, ttl_s: int) -> Sequence[str | None] | None:
        """URLs of the store itself, if the credentials can make them."""
        if self._sign is not None:
            return self._sign(names, ttl_s)
        if not self._can_sign:
            return None
        chosen = [
            name for name in names if is_readable(name) and (not self._plain_only or _PLAIN.fullmatch(name))
        ]
        if not chosen:
            return [None] * len(names)
        with _translated():
            signed = obstore.sign(self._store, "GET", chosen, expires_in=dt.timedelta(seconds=ttl_s))
        urls = dict(zip(chosen, signed, strict=True))
        return [urls.get(name) for name in names]

    def verify(self, *, probe: str) -> dict[str, str]:
        """Lists, and writes, overwrites, reads and removes an object below `.lightly/`."""
        key = f"{HIDDEN_FOLDER}/{probe}"
        missing: dict[str, str] = {}

        def attempt(right: str, action: Any) -> None:
            try:
                with _translated():
                    action()
            except Fault as fault:
                missing[right] = fault.text

        attempt("canList", lambda: next(self._list(), None))
        attempt("canWrite", lambda: obstore.put(self._store, key, b"1"))
        if "canWrite" in missing:
            missing["canOverwrite"] = missing["canWrite"]
            if "canList" in missing:
                missing["canRead"] = missing["canList"]
            return missing
        attempt("canOverwrite", lambda: obstore.put(self._store, key, b"2"))
        attempt("canRead", lambda: obstore.get(self._store, key).bytes())
        with contextlib.suppress(BaseError):
            obstore.delete(self._store, key)
        return missing


@contextmanager
def _translated_unless_missing() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except NotFoundError as error:
        raise FileNotFoundError from error
    except (BaseError, OSError) as error:
        raise _explain(error) from error


def open_object(store: ObjectStore, name: str) -> OpenBlob:
    """Opens an object of a bucket for reading in pieces; raises what the store raises."""
    entry = obstore.head(store, name)
    return OpenBlob(
        size=entry["size"],
        modified_s=entry["last_modified"].timestamp(),
        file=cast("BinaryIO", Reader(obstore.open_reader(store, name))),
    )


class Reader:
    """obstore's reader with the three methods that serving needs."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def read(self, size: int = -1) -> bytes:
        """The next bytes; all that are left without a size."""
        return bytes(self._reader.read(size if size >= 0 else None))

    def close(self) -> None:
        """Ends reading."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
