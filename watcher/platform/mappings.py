"""Mappings: values of all samples in bit order."""

from __future__ import annotations

from collections.abc import Iterator

from watcher.platform import access
from watcher.platform.calls import PAGE_OFFSET, PAGE_SIZE, Call, Operation, Stream, choice
from watcher.platform.store import samples as store

FIELD = choice("field", "_id", "fileName", required=True)
_CHUNK = 50_000


def get_mappings(call: Call) -> Stream:
    """The ids or the names, position by position; the order never changes."""
    field: store.MappingField = "id" if FIELD.must(call) == "_id" else "file_name"
    offset, limit = PAGE_OFFSET.of(call) or 0, PAGE_SIZE.of(call)
    database = call.platform.database
    with database.read() as session:
        dataset = access.find_dataset(session, call)
    end = dataset.n_samples if limit is None else min(dataset.n_samples, offset + limit)

    def chunks() -> Iterator[bytes]:
        opening = "["
        for first in range(offset, end, _CHUNK):
            with database.read() as session:
                inside = store.load_mapping_json(
                    session, dataset_id=dataset.id, field=field, first=first, end=min(end, first + _CHUNK)
                )
            if inside:
                yield (opening + inside).encode()
                opening = ","
        yield b"[]" if opening == "[" else b"]"

    return Stream(chunks())


OPERATIONS = (
    Operation(
        "GET",
        "/v1/datasets/{datasetId}/mappings",
        "getSampleMappingsByDatasetId",
        get_mappings,
        "Values of all samples in bit order",
        reply=list[str],
        query=(FIELD, PAGE_SIZE, PAGE_OFFSET),
    ),
)
