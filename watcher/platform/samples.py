"""Samples."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy.exc import IntegrityError

from watcher.lightly.wire.datasets import CreateEntityResponse
from watcher.lightly.wire.samples import (
    SampleCreateRequest,
    SampleData,
    SamplePartialData,
    SampleUpdateRequest,
)
from watcher.platform import access
from watcher.platform.calls import (
    PAGE_OFFSET,
    PAGE_SIZE,
    Call,
    Operation,
    Stream,
    boolean,
    check_size,
    choice,
    text,
)
from watcher.platform.faults import invalid, unknown
from watcher.platform.intake import MAX_TOTAL_BYTES, build_too_many_bytes
from watcher.platform.secrets import is_id
from watcher.platform.store import datasets as dataset_store
from watcher.platform.store import samples as store

if TYPE_CHECKING:
    from watcher.database.engine import Database

MAX_NAME_BYTES = 2048
MODE = choice("mode", "ids", "fileNames", "full")
FILE_NAME = text("fileName")
SORT_BY = choice("sortBy", "_id", "index")
_CHUNK = 2000
# The size of one sample, 8 TiB.
MAX_SIZE_BYTES = 2**43
# The greatest values that the strict client 1.5.26 takes; none may be negative. Whole numbers come in any size.
_ANY = sys.float_info.max
_NUMBERS = {"sharpness": _ANY, "snr": _ANY, "luminance": 100.0, "uniformRowRatio": 1.0}
_TRIPLES = {"mean": 1.0, "std": _ANY, "sumOfSquares": _ANY, "sumOfValues": _ANY}

_ABSENT = msgspec.Raw()


class SentSample(SampleCreateRequest, frozen=True, kw_only=True):
    """A sample to create, its free-form parts kept as they were sent."""

    exif: msgspec.Raw = _ABSENT  # type: ignore[assignment] # kept raw
    meta_data: msgspec.Raw = _ABSENT  # type: ignore[assignment] # kept raw
    custom_meta_data: msgspec.Raw = _ABSENT  # type: ignore[assignment] # kept raw
    crop_data: msgspec.Raw = _ABSENT  # type: ignore[assignment] # kept raw


class SentUpdate(SampleUpdateRequest, frozen=True, kw_only=True):
    """A change of a sample, its free-form parts kept as they were sent."""

    exif: msgspec.Raw = _ABSENT  # type: ignore[assignment] # kept raw
    meta_data: msgspec.Raw = _ABSENT  # type: ignore[assignment] # kept raw
    custom_meta_data: msgspec.Raw = _ABSENT  # type: ignore[assignment] # kept raw


class _Reply(SamplePartialData, frozen=True, kw_only=True):
    exif: msgspec.Raw | None = None  # type: ignore[assignment] # sent as kept
    meta_data: msgspec.Raw | None = None  # type: ignore[assignment] # sent as kept
    custom_meta_data: msgspec.Raw | None = None  # type: ignore[assignment] # sent as kept
    video_frame_data: msgspec.Raw | None = None  # type: ignore[assignment] # sent as kept
    crop_data: msgspec.Raw | None = None  # type: ignore[assignment] # sent as kept


def _raw(value: str | None) -> msgspec.Raw | None:
    return None if value is None else msgspec.Raw(value.encode())


def to_reply(row: store.SampleRow) -> _Reply:
    """The protocol's form of a sample."""
    return _Reply(
        id=row.id,
        type=row.type,
        dataset_id=row.dataset_id,
        file_name=row.file_name,
        thumb_name=row.thumb_name,
        exif=_raw(row.exif),
        index=row.position,
        created_at=row.created_at,
        last_modified_at=row.modified_at,
        meta_data=_raw(row.metadata_reply),
        custom_meta_data=_raw(row.custom_metadata),
        video_frame_data=_raw(row.video_frame),
        crop_data=_raw(row.crop),
    )


def _object_text(raw: msgspec.Raw, what: str) -> str | None:
    """JSON text of an object, None if absent or null."""
    if not bytes(raw):
        return None
    try:
        value = msgspec.json.decode(raw, type=dict[str, Any] | None)
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid(
            f"{what} must be a JSON object: {error}", "SAMPLE_CREATE_REQUEST_INVALID_FORMAT"
        ) from error
    return None if value is None else bytes(raw).decode()


def build_metadata_columns(raw: msgspec.Raw) -> dict[str, Any]:
    """What is stored of `metaData`: all of it, and the part that the strict client 1.5.26 can read.

    Raises:
        Fault: it is no object, or its `sizeInBytes` is beyond any file.
    """
    sent = _object_text(raw, "metaData")
    if sent is None:
        return {"metadata_sent": None, "metadata_reply": None, "size_in_bytes": 0}
    values: dict[str, Any] = msgspec.json.decode(sent)
    reply: dict[str, Any] = {}
    for key, highest in _NUMBERS.items():
        number: Any = values.get(key)
        if _is_number(number, highest):
            reply[key] = float(number)
    for key, highest in _TRIPLES.items():
        numbers = values.get(key)
        if isinstance(numbers, list) and len(numbers) == 3 and all(_is_number(n, highest) for n in numbers):
            reply[key] = [float(number) for number in numbers]
    shape = values.get("shape")
    if isinstance(shape, list) and len(shape) == 3 and all(_is_count(n) for n in shape):
        reply["shape"] = shape
    for key in ("custom", "dynamic"):
        if isinstance(values.get(key), dict):
            reply[key] = values[key]
    size = values.get("sizeInBytes")
    if isinstance(size, int) and size > MAX_SIZE_BYTES:
        raise invalid(f"sizeInBytes is {MAX_SIZE_BYTES} at the most", "SAMPLE_CREATE_REQUEST_INVALID_FORMAT")
    if _is_count(size):
        reply["sizeInBytes"] = size
    return {
        "metadata_sent": sent,
        "metadata_reply": msgspec.json.encode(reply).decode(),
        "size_in_bytes": reply.get("sizeInBytes", 0),
    }


def _is_number(value: Any, highest: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= highest


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def check_name(name: str, what: str = "fileName") -> None:
    """Refuses names that no client could store as a file below a folder of its own.

    Empty parts and backslashes may be: a bucket holds the first, clients on Windows send the second.
    """
    if (
        not name
        or len(name.encode()) > MAX_NAME_BYTES
        or "\0" in name
        or name.startswith("/")
        or name.endswith("/")
        or any(part in (".", "..") for part in name.split("/"))
    ):
        raise invalid(
            f"{what} must be a relative path of 1 to {MAX_NAME_BYTES} bytes without dot parts and NUL, and no folder",
            "SAMPLE_CREATE_REQUEST_INVALID_FORMAT",
        )


def build_sample_row(call: Call, request: SentSample) -> dict[str, Any]:
    """The columns of a new sample, but for its dataset, position and id."""
    check_name(request.file_name)
    if request.thumb_name is not None:
        check_name(request.thumb_name, "thumbName")
    custom = _object_text(request.custom_meta_data, "customMetaData")
    _check_custom(call, custom)
    crop = _object_text(request.crop_data, "cropData")
    video = request.video_frame_data
    kind = "CROP" if crop is not None else "VIDEO_FRAME" if video is not None else "IMAGE"
    return {
        "file_name": request.file_name,
        "thumb_name": request.thumb_name,
        "type": kind,
        "exif": _object_text(request.exif, "exif"),
        "custom_metadata": custom,
        "video_frame": None if video is None else msgspec.json.encode(video).decode(),
        "crop": crop,
        "created_at": call.now_ms,
        "modified_at": call.now_ms,
        **build_metadata_columns(request.meta_data),
    }


def _check_custom(call: Call, custom: str | None) -> None:
    limit = call.platform.config.max_custom_metadata_bytes
    check_size(custom, limit, "customMetaData", "CUSTOM_METADATA_AT_MAX_SIZE")


def create(call: Call) -> tuple[str, str]:
    """Registers the sample of the body; gives the ids of its dataset and itself."""
    row = build_sample_row(call, call.read(SentSample))
    dataset_id = call.path["datasetId"]
    if not is_id(dataset_id):
        raise unknown("DATASET_UNKNOWN", "there is no such dataset for this token")
    sample_id = call.platform.intake.create(dataset_id=dataset_id, user_id=call.caller.id, row=row)
    return dataset_id, sample_id


def create_sample(call: Call) -> CreateEntityResponse:
    """Registers a sample; a name that is there already gives back its id."""
    _dataset_id, sample_id = create(call)
    return CreateEntityResponse(id=sample_id)


def _stream(call: Call, columns: Sequence[str] | None, *, by_id: bool = False) -> Stream:
    offset, limit = PAGE_OFFSET.of(call) or 0, PAGE_SIZE.of(call)
    name = FILE_NAME.of(call)
    database = call.platform.database
    with database.read() as session:
        dataset = access.find_dataset(session, call)
        found = (
            store.load_sample_by_name(session, dataset_id=dataset.id, file_name=name)
            if name is not None
            else None
        )
    if name is not None:
        rows = [found] if found is not None and offset == 0 else []
        return Stream(iter([msgspec.json.encode([_to_partial(row, columns) for row in rows])]))
    end = dataset.n_samples if limit is None else min(dataset.n_samples, offset + limit)
    pieces = _iterate_by_id if by_id else _iterate

    def chunks() -> Iterator[bytes]:
        opening = b"["
        for rows in pieces(database, dataset.id, offset, end, columns):
            yield opening + msgspec.json.encode([_to_partial(row, columns) for row in rows])[1:-1]
            opening = b","
        yield b"[]" if opening == b"[" else b"]"

    return Stream(chunks())


def _iterate(
    database: Database, dataset_id: str, first: int, end: int, columns: Sequence[str] | None
) -> Iterator[list[store.SampleRow]]:
    # Every piece is a transaction of its own, so that a slow reader holds no connection.
    while first < end:
        with database.read() as session:
            rows = store.load_samples(
                session, dataset_id=dataset_id, first=first, end=end, limit=_CHUNK, columns=columns
            )
        if not rows:
            break
        yield rows
        first = rows[-1].position + 1


def _iterate_by_id(
    database: Database, dataset_id: str, first: int, end: int, columns: Sequence[str] | None
) -> Iterator[list[store.SampleRow]]:
    if first >= end:
        return
    with database.read() as session:
        positions = store.load_positions_by_id(
            session, dataset_id=dataset_id, offset=first, limit=end - first
        )
    for start in range(0, len(positions), _CHUNK):
        with database.read() as session:
            rows = store.load_samples_at(
                session, dataset_id=dataset_id, positions=positions[start : start + _CHUNK], columns=columns
            )
        yield sorted(rows, key=attrgetter("id"))


def _to_partial(row: store.SampleRow, columns: Sequence[str] | None) -> _Reply:
    if columns is None:
        return to_reply(row)
    return _Reply(id=row.id, file_name=row.file_name if "file_name" in columns else None)


def get_samples(call: Call) -> Stream:
    """All samples in mapping order, or by their ids, or the one of a name.

    The `mode` of the oldest clients changes nothing: they can read whole samples alone.
    """
    return _stream(call, None, by_id=SORT_BY.of(call) == "_id")


def get_samples_partial(call: Call) -> Stream:
    """Samples with the fields of the mode."""
    mode = MODE.of(call) or "full"
    columns = {"ids": ("id", "position"), "fileNames": ("id", "position", "file_name"), "full": None}[mode]
    return _stream(call, columns)


def get_sample(call: Call) -> _Reply:
    """One sample."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        return to_reply(access.find_sample(session, call, dataset.id))


def update_sample(call: Call) -> None:
    """Changes the fields that were sent; `customMetaData` is replaced as a whole."""
    request = call.read(SentUpdate)
    values: dict[str, Any] = {"modified_at": call.now_ms}
    if request.file_name is not None:
        check_name(request.file_name)
        values["file_name"] = request.file_name
    if request.thumb_name is not None:
        check_name(request.thumb_name, "thumbName")
        values["thumb_name"] = request.thumb_name
    if bytes(request.exif):
        values["exif"] = _object_text(request.exif, "exif")
    if bytes(request.custom_meta_data):
        values["custom_metadata"] = _object_text(request.custom_meta_data, "customMetaData")
        _check_custom(call, values["custom_metadata"])
    if bytes(request.meta_data):
        values.update(build_metadata_columns(request.meta_data))
    try:
        with call.platform.database.write() as session:
            dataset = access.find_dataset(session, call, lock="size_in_bytes" in values)
            sample = access.find_sample(session, call, dataset.id)
            store.update_sample(session, sample_id=sample.id, values=values)
            if "size_in_bytes" in values:
                size = dataset.size_in_bytes - sample.size_in_bytes + values["size_in_bytes"]
                if size > MAX_TOTAL_BYTES:
                    raise build_too_many_bytes()
                dataset_store.update_dataset(session, dataset_id=dataset.id, values={"size_in_bytes": size})
    except IntegrityError as error:
        # Not 409: the official client repeats that for half a minute.
        raise invalid("another sample of the dataset has that name", "CONFLICT") from error


_ALL = "/v1/datasets/{datasetId}/samples"
_ONE = _ALL + "/{sampleId}"
_PAGE = (PAGE_SIZE, PAGE_OFFSET)
OPERATIONS = (
    Operation(
        "GET",
        _ALL,
        "getSamplesByDatasetId",
        get_samples,
        "List samples",
        reply=list[SampleData],
        query=(text("mode"), FILE_NAME, SORT_BY, *_PAGE),
    ),
    Operation(
        "POST",
        _ALL,
        "createSampleByDatasetId",
        create_sample,
        "Register a sample",
        reply=CreateEntityResponse,
        body=SampleCreateRequest,
        status=201,
    ),
    Operation(
        "GET",
        _ALL + "/partial",
        "getSamplesPartialByDatasetId",
        get_samples_partial,
        "List samples, chosen fields",
        reply=list[SamplePartialData],
        query=(MODE, FILE_NAME, *_PAGE),
    ),
    Operation("GET", _ONE, "getSampleById", get_sample, "Read a sample", reply=SampleData),
    Operation(
        "PUT",
        _ONE,
        "updateSampleById",
        update_sample,
        "Change a sample",
        body=SampleUpdateRequest,
        query=(boolean("enableDatasetUpdate"),),
    ),
)
