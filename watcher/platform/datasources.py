"""Datasources: configuration, listing, and the processed-until mark."""

from __future__ import annotations

import hashlib
import secrets as random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from sqlalchemy.orm import Session

from watcher.lightly.wire.datasources import (
    Datasource,
    DatasourceLightly,
    DatasourceLocal,
    DatasourceVerifyData,
    ProcessedUntilTimestamp,
)
from watcher.platform import access, signing
from watcher.platform.calls import Call, Operation, Redirect, choice, text
from watcher.platform.faults import forbidden, invalid, unknown
from watcher.platform.listings import MAX_SECOND
from watcher.platform.objects.base import ObjectSource, Source
from watcher.platform.objects.folder import FolderSource, check_full_path
from watcher.platform.secrets import is_id, new_id
from watcher.platform.settings import FIRST_USER
from watcher.platform.store import datasets as dataset_store
from watcher.platform.store import datasources as store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watcher.platform.context import Platform

PURPOSE = choice("purpose", "INPUT_OUTPUT", "INPUT", "LIGHTLY")
PATH = text("path", min_length=1, required=True)
PUBLIC_TOKEN = text("publicToken", required=True)
HIDDEN = "***"
# Below the root, a folder for each user but the first, who is the operator.
_USERS_FOLDER = "users"
_SECRET_FIELDS = ("s3_secret_access_key", "gcs_credentials", "account_key", "obs_secret_access_key")
_LISTED = ("INPUT_OUTPUT", "INPUT")
_INVALID = "DATASET_DATASOURCE_INVALID"
NO_DATASOURCE = "this dataset has no datasource: set one with PUT .../datasource"


def decode_settings(platform: Platform, row: store.DatasourceRow) -> Datasource:
    """The stored configuration, credentials included."""
    values: dict[str, Any] = msgspec.json.decode(row.settings)
    values.pop("_secret", None)
    if row.secrets is not None:
        values.update(msgspec.json.decode(platform.vault.unlock(row.secrets)))
    settings: Datasource = msgspec.convert(values, type=Datasource)
    return settings


def build_objects(platform: Platform, settings: Datasource) -> ObjectSource | None:
    """The objects behind a configuration; connects to nothing."""
    if isinstance(settings, DatasourceLightly):
        return None
    if isinstance(settings, DatasourceLocal):
        root, path = platform.config.datasource_root, settings.full_path
        parts = path.split("/", maxsplit=2)
        if parts[0] == _USERS_FOLDER and len(parts) > 1:
            # What a link in there leads to must be the user's as well.
            check_full_path(path)
            root, path = root / parts[0] / parts[1], "".join(parts[2:])
        return FolderSource(root=root, full_path=path, excluded=platform.config.data_dir)
    from watcher.platform.objects.cloud import build_cloud_source  # noqa: PLC0415 - loads obstore and cryptography

    return build_cloud_source(settings, platform.config, roles=platform.roles, clock=platform.clock)


def load_source(platform: Platform, session: Session, dataset_id: str) -> Source | None:
    """The datasource that is listed and read: INPUT_OUTPUT, else INPUT."""
    rows = {row.purpose: row for row in store.load_datasources(session, dataset_id=dataset_id)}
    row = next((rows[purpose] for purpose in _LISTED if purpose in rows), None)
    if row is None:
        return None
    digest = hashlib.sha256(f"{row.type}\0{row.settings}".encode()).hexdigest()[:12]
    settings = decode_settings(platform, row)
    path = settings.full_path.rstrip("/")
    return Source(
        digest=digest,
        objects=build_objects(platform, settings),
        prefix=path + "/" if path else "",
    )


def _to_reply(settings: Datasource, row: store.DatasourceRow) -> Datasource:
    hidden = {name: HIDDEN for name in _SECRET_FIELDS if hasattr(settings, name)}
    return msgspec.structs.replace(settings, id=row.id, purpose=row.purpose, **hidden)


def _decode_public(row: store.DatasourceRow) -> Datasource:
    values: dict[str, Any] = msgspec.json.decode(row.settings)
    values.update(dict.fromkeys(values.pop("_secret", ()), HIDDEN))
    settings: Datasource = msgspec.convert(values, type=Datasource)
    return settings


def get_datasource(call: Call) -> Datasource:
    """The datasource of a purpose, its secrets hidden."""
    purpose = PURPOSE.of(call)
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        rows = {row.purpose: row for row in store.load_datasources(session, dataset_id=dataset.id)}
    wanted = (purpose,) if purpose is not None else ("INPUT_OUTPUT", "INPUT", "LIGHTLY")
    row = next((rows[name] for name in wanted if name in rows), None)
    if row is None:
        raise unknown("DATASET_DATASOURCE_UNKNOWN", NO_DATASOURCE)
    return _to_reply(_decode_public(row), row)


def get_datasources(call: Call) -> list[Datasource]:
    """All datasources of a dataset, their secrets hidden."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        rows = store.load_datasources(session, dataset_id=dataset.id)
    return [_to_reply(_decode_public(row), row) for row in rows]


def update_datasource(call: Call) -> None:
    """Sets the datasource of its purpose; credentials are encrypted and never given back."""
    settings: Datasource = call.read(Datasource)  # type: ignore[arg-type] # a union is no type[T] to mypy
    if isinstance(settings, DatasourceLocal) and settings.full_path == ".":
        settings = msgspec.structs.replace(settings, full_path="")
    purpose = settings.purpose or "INPUT_OUTPUT"
    _check_folder(call, settings)
    build_objects(call.platform, settings)
    values: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(settings, id=None, purpose=None))
    names = {field.name: field.encode_name for field in msgspec.structs.fields(type(settings))}
    secret_keys = [names[name] for name in _SECRET_FIELDS if name in names]
    secrets = {key: values.pop(key) for key in secret_keys}
    hidden = [key for key, secret in secrets.items() if secret == HIDDEN]
    if hidden:
        raise invalid(
            f"{hidden[0]} is {HIDDEN}, which stands for a secret that is never given back: send the secret itself",
            _INVALID,
        )
    if secret_keys:
        values["_secret"] = secret_keys
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        store.replace_datasource(
            session,
            datasource_id=new_id(call.now_s),
            dataset_id=dataset.id,
            purpose=purpose,
            kind=values["type"],
            settings=msgspec.json.encode(values).decode(),
            secrets=call.platform.vault.lock(msgspec.json.encode(secrets)) if secrets else None,
        )
        dataset_store.update_dataset(session, dataset_id=dataset.id, values={"modified_at": call.now_ms})
    call.platform.sources.clear()


def _check_folder(call: Call, settings: Datasource) -> None:
    """Folders of the machine are the operator's; everybody else has one of their own."""
    if not isinstance(settings, DatasourceLocal) or call.caller.name == FIRST_USER:
        return
    own = f"{_USERS_FOLDER}/{call.caller.name}"
    if settings.full_path != own and not settings.full_path.startswith(own + "/"):
        raise forbidden(
            f"a LOCAL datasource of the user {call.caller.name!r} lies in or below {own!r}: put the pictures there, "
            "or have the first user share a dataset",
        )


def verify_datasource(call: Call) -> dict[str, Any]:
    """Tries what the server may do there."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        source = load_source(call.platform, session, dataset.id)
    if source is None:
        raise unknown("DATASET_DATASOURCE_UNKNOWN", NO_DATASOURCE)
    probe = f"probe-{random.token_hex(6)}"
    missing = source.objects.verify(probe=probe) if source.objects is not None else {}
    reply: dict[str, Any] = {
        right: right not in missing for right in ("canRead", "canWrite", "canList", "canOverwrite")
    }
    if missing:
        reply["errors"] = missing
    return reply


def sign_reads(call: Call, dataset_id: str, source: Source, names: Sequence[str]) -> list[str]:
    """URLs to read objects: of the store itself, or served by the platform."""
    ttl_s = call.platform.config.read_url_ttl_s
    signed = None if source.objects is None else source.objects.sign_reads(names, ttl_s=ttl_s)
    if signed is None:
        return signing.sign_files(call, dataset_id, names)
    own = [name for name, url in zip(names, signed, strict=True) if url is None]
    served = dict(zip(own, signing.sign_files(call, dataset_id, own), strict=True)) if own else {}
    return [url if url is not None else served[name] for name, url in zip(names, signed, strict=True)]


def encode_reads(call: Call, dataset_id: str, source: Source, names: Sequence[str]) -> bytes:
    """The rows of a page of a listing as JSON, each object with its URL of `sign_reads`.

    Where such a URL is slow to make, each has one of the platform instead, which leads there when it is read.
    """
    if source.objects is not None and (
        isinstance(source.objects, FolderSource) or source.objects.signs_slowly
    ):
        return signing.encode_files(call, dataset_id, names)
    return signing.encode_rows(names, sign_reads(call, dataset_id, source, names))


def _public_message(dataset_id: str, name: str) -> bytes:
    return f"REDIRECT\n{dataset_id}\n{name}".encode()


def sign_redirects(call: Call, dataset_id: str, names: Sequence[str]) -> list[str]:
    """URLs that never expire, as long as the key is listed, and lead to fresh signed ones."""
    sign = call.platform.keys.sign_url
    prefix = f"{call.url_base}/v1/datasets/{dataset_id}/datasource/readurlRedirect?path="
    return [
        f"{prefix}{quote(name, safe='')}&publicToken={sign(_public_message(dataset_id, name))}"
        for name in names
    ]


def redirect_to_object(call: Call) -> Redirect:
    """Leads to a fresh signed URL; the address itself never expires."""
    dataset_id, name = call.path["datasetId"], PATH.must(call)
    if not is_id(dataset_id) or not call.platform.keys.is_url_signature(
        _public_message(dataset_id, name), PUBLIC_TOKEN.must(call)
    ):
        raise forbidden("the signature of this URL does not fit")
    with call.platform.database.read() as session:
        source = load_source(call.platform, session, dataset_id)
    if source is None:
        raise unknown("DATASET_DATASOURCE_UNKNOWN", NO_DATASOURCE)
    return Redirect(sign_reads(call, dataset_id, source, [name])[0])


def get_mark(call: Call) -> ProcessedUntilTimestamp:
    """The processed-until mark, unix seconds; 0 = never."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        return ProcessedUntilTimestamp(processed_until_timestamp=dataset.processed_until)


def update_mark(call: Call) -> None:
    """Sets the mark; going back is allowed."""
    mark = call.read(ProcessedUntilTimestamp).processed_until_timestamp
    if mark > MAX_SECOND:
        raise invalid("the mark is in seconds, this one is too large")
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        values = {"processed_until": mark, "modified_at": call.now_ms}
        dataset_store.update_dataset(session, dataset_id=dataset.id, values=values)


_ALL = "/v1/datasets/{datasetId}/datasource"
OPERATIONS = (
    Operation(
        "GET",
        _ALL,
        "getDatasourceByDatasetId",
        get_datasource,
        "Read the datasource",
        reply=Datasource,
        query=(PURPOSE,),
    ),
    Operation(
        "PUT",
        _ALL,
        "updateDatasourceByDatasetId",
        update_datasource,
        "Set the datasource",
        body=Datasource,
    ),
    Operation(
        "GET",
        _ALL + "/all",
        "getDatasourcesByDatasetId",
        get_datasources,
        "All datasources",
        reply=list[Datasource],
    ),
    Operation(
        "GET",
        _ALL + "/verify",
        "verifyDatasourceByDatasetId",
        verify_datasource,
        "Check access rights",
        reply=DatasourceVerifyData,
    ),
    Operation(
        "GET",
        _ALL + "/processedUntilTimestamp",
        "getDatasourceProcessedUntilTimestampByDatasetId",
        get_mark,
        "Read the processed-until mark",
        reply=ProcessedUntilTimestamp,
    ),
    Operation(
        "PUT",
        _ALL + "/processedUntilTimestamp",
        "updateDatasourceProcessedUntilTimestampByDatasetId",
        update_mark,
        "Set the processed-until mark",
        body=ProcessedUntilTimestamp,
    ),
    Operation(
        "GET",
        _ALL + "/readurlRedirect",
        "getResourceReadUrlRedirect",
        redirect_to_object,
        "Redirect to an object",
        status=302,
        query=(PATH, PUBLIC_TOKEN),
        public=True,
    ),
)
