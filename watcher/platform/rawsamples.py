"""Listings of a datasource's objects: pages, shards, restrictions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from watcher.lightly.wire.datasources import DivideAndConquerCursors, RawSamplesPage
from watcher.platform import access, datasources, signing
from watcher.platform.calls import Call, Operation, boolean, integer, text
from watcher.platform.faults import invalid, unknown
from watcher.platform.listings import (
    FIRST,
    MAX_SECOND,
    Cursor,
    Page,
    Row,
    Snapshot,
    decode_cursor,
    encode_cursor,
)
from watcher.platform.objects.base import ObjectSource, Source

_T = TypeVar("_T")
FROM = integer("from", maximum=MAX_SECOND)
TO = integer("to", maximum=MAX_SECOND)
CURSOR = text("cursor", max_length=16_384)
RELEVANT = text("relevantFilenamesFileName", min_length=4)
PREFIX = text("prefix", max_length=1024)
SUFFIX = text("suffix", max_length=1024)
REDIRECTED = boolean("useRedirectedReadUrl")
SHARDS = integer("dncShards", minimum=1, maximum=1000, required=True)
_MAX_RELEVANT_BYTES = 64 * 1024 * 1024


def _open_listing(call: Call) -> tuple[str, Source, ObjectSource]:
    dataset_id = call.path["datasetId"]
    source = call.platform.sources.find(call.caller.id, dataset_id)
    if source is None:
        with call.platform.database.read() as session:
            dataset = access.find_dataset(session, call)
            source = datasources.load_source(call.platform, session, dataset.id)
        if source is None:
            raise unknown("DATASET_DATASOURCE_UNKNOWN", datasources.NO_DATASOURCE)
        call.platform.sources.keep(source, call.caller.id, dataset_id)
    if source.objects is None:
        raise invalid(
            "a datasource of type LIGHTLY has no objects to list", "DATASET_DATASOURCE_ILLEGAL_ACTION"
        )
    return dataset_id, source, source.objects


def _take(
    call: Call, objects: ObjectSource, state: Cursor, *, use: Callable[[Snapshot], _T]
) -> tuple[str, _T]:
    def rows() -> Iterator[Row]:
        if state.from_s > state.to_s:
            return
        found = objects.scan(from_s=state.from_s, to_s=state.to_s)
        if state.prefix or state.suffix:
            # Endings tell the kind of a file, and cameras write them in either case.
            ending = state.suffix.lower()
            found = (
                row for row in found if row[1].startswith(state.prefix) and row[1].lower().endswith(ending)
            )
        if not state.relevant:
            yield from found
            return
        relevant = _load_relevant(objects, state.relevant)
        yield from (row for row in found if row[1] in relevant)

    return call.platform.listings.take(rows, owner=call.caller.id, use=use)


def _load_relevant(objects: ObjectSource, name: str) -> frozenset[str]:
    blob = objects.open(name)
    if blob is None:
        raise invalid(
            f"the datasource has no file {name[:200]!r}", "DATASET_DATASOURCE_RELEVANT_FILENAMES_INVALID"
        )
    with blob.file:
        if blob.size > _MAX_RELEVANT_BYTES:
            raise invalid("the list of relevant names is too long", "DATASET_DATASOURCE_FILE_TOO_LARGE")
        try:
            # Not `splitlines`: names may hold what it takes for ends of lines, and would never be listed.
            lines = blob.file.read(_MAX_RELEVANT_BYTES).decode("utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise invalid(
                "the list of relevant names is not UTF-8", "DATASET_DATASOURCE_RELEVANT_FILENAMES_INVALID"
            ) from error
    return frozenset(name for line in lines if (name := line.removesuffix("\r")))


def _start(call: Call, dataset_id: str, source: Source) -> Cursor:
    to_s = TO.of(call)
    return Cursor(
        dataset_id=dataset_id,
        source=source.digest,
        from_s=FROM.of(call) or 0,
        to_s=MAX_SECOND if to_s is None else to_s,
        after=FIRST,
        until=None,
        snapshot="",
        relevant=RELEVANT.of(call) or "",
        prefix=PREFIX.of(call) or "",
        suffix=SUFFIX.of(call) or "",
    )


def list_raw_samples(call: Call) -> msgspec.Raw:
    """One page of objects in order of time, each with a URL to read it."""
    platform = call.platform
    text_cursor = CURSOR.of(call)
    dataset_id, source, objects = _open_listing(call)
    if text_cursor:
        state = decode_cursor(text_cursor, platform.keys)
        if state.dataset_id != dataset_id:
            raise invalid("the cursor belongs to another dataset")
        if state.source != source.digest:
            raise invalid("the datasource was changed meanwhile: start the listing again without the cursor")
    else:
        state = _start(call, dataset_id, source)
    limit = platform.config.page_size

    def read(snapshot: Snapshot) -> Page:
        return snapshot.read(after=state.after, until=state.until, limit=limit)

    name, page = state.snapshot, None
    snapshot = platform.listings.find(name) if name else None
    if snapshot is not None:
        # LookupError: another request just pushed it out.
        with contextlib.suppress(LookupError):
            page = read(snapshot)
    if page is None:
        name, taken = _take(call, objects, state, use=read)
        page = taken
    rows = (
        signing.encode_rows(page.names, datasources.sign_redirects(call, dataset_id, page.names))
        if REDIRECTED.of(call)
        else datasources.encode_reads(call, dataset_id, source, page.names)
    )
    cursor = encode_cursor(msgspec.structs.replace(state, after=page.last, snapshot=name), platform.keys)
    has_more = b"true" if page.more else b"false"
    return msgspec.Raw(b'{"hasMore":%b,"cursor":"%b","data":%b}' % (has_more, cursor.encode(), rows))


def split_listing(call: Call) -> DivideAndConquerCursors:
    """Cursors of shards that together list every object once."""
    n_shards = SHARDS.must(call)
    dataset_id, source, objects = _open_listing(call)
    state = _start(call, dataset_id, source)
    if n_shards == 1:
        return DivideAndConquerCursors(cursors=[encode_cursor(state, call.platform.keys)])
    name, ranges = _take(call, objects, state, use=lambda snapshot: snapshot.split(n_shards))
    return DivideAndConquerCursors(
        cursors=[
            encode_cursor(
                msgspec.structs.replace(state, after=after, until=until, snapshot=name), call.platform.keys
            )
            for after, until in ranges
        ]
    )


_ALL = "/v1/datasets/{datasetId}/datasource"
OPERATIONS = (
    Operation(
        "GET",
        _ALL + "/list",
        "getListOfRawSamplesFromDatasourceByDatasetId",
        list_raw_samples,
        "List objects",
        reply=RawSamplesPage,
        query=(FROM, TO, CURSOR, RELEVANT, PREFIX, SUFFIX, REDIRECTED),
    ),
    Operation(
        "GET",
        _ALL + "/list/dnc",
        "getDivideAndConquerListOfRawSamplesFromDatasourceByDatasetId",
        split_listing,
        "Split a listing into shards",
        reply=DivideAndConquerCursors,
        query=(FROM, TO, RELEVANT, PREFIX, SUFFIX, SHARDS),
    ),
)
