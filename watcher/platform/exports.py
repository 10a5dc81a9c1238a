"""Names of the samples in a tag, as a list and as text."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from watcher.domain.bitmask import BitMask
from watcher.platform import access, datasources, tags
from watcher.platform.calls import (
    PAGE_OFFSET,
    PAGE_SIZE,
    Call,
    Operation,
    Stream,
    boolean,
    choice,
    integer,
    text,
)
from watcher.platform.store import samples as sample_store

NAME_FORMAT = choice("fileNameFormat", "NAME", "DATASOURCE_FULL", "REDIRECTED_READ_URL")
_CHUNK = 1000


def iter_samples(
    call: Call, dataset_id: str, mask: BitMask, *, columns: tuple[str, ...], chunk: int = _CHUNK
) -> Iterator[list[sample_store.SampleRow]]:
    """The samples of a mask in mapping order, piece by piece."""
    positions: list[int] = []
    for position in mask:
        positions.append(position)
        if len(positions) == chunk:
            yield _load(call, dataset_id, positions, columns)
            positions = []
    if positions:
        yield _load(call, dataset_id, positions, columns)


def _load(
    call: Call, dataset_id: str, positions: list[int], columns: tuple[str, ...]
) -> list[sample_store.SampleRow]:
    with call.platform.database.read() as session:
        return sample_store.load_samples_at(
            session, dataset_id=dataset_id, positions=positions, columns=columns
        )


def get_filenames(call: Call) -> Stream:
    """The names in a tag, in mapping order."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        mask = tags.decode_mask(access.find_tag(session, dataset.id, call.path["tagId"]).mask)

    def chunks() -> Iterator[bytes]:
        opening = b"["
        for rows in iter_samples(call, dataset.id, mask, columns=("file_name",)):
            yield opening + msgspec.json.encode([row.file_name for row in rows])[1:-1]
            opening = b","
        yield b"[]" if opening == b"[" else b"]"

    return Stream(chunks())


def export_filenames(call: Call) -> Stream:
    """The names in a tag as one JSON text, a line each.

    Everything comes at offset 0 and nothing behind it: 1.5.26 compares characters with the page size, so any other
    cut would make it lose or repeat lines.
    """
    kind = NAME_FORMAT.of(call) or "NAME"
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        mask = tags.decode_mask(access.find_tag(session, dataset.id, call.path["tagId"]).mask)
        source = datasources.load_source(call.platform, session, dataset.id) if kind != "NAME" else None
    if PAGE_OFFSET.of(call):
        return Stream(iter([b'""']))

    def chunks() -> Iterator[bytes]:
        yield b'"'
        separator = b""
        for rows in iter_samples(call, dataset.id, mask, columns=("file_name",)):
            names = [row.file_name for row in rows]
            if kind == "REDIRECTED_READ_URL":
                names = datasources.sign_redirects(call, dataset.id, names)
            elif kind == "DATASOURCE_FULL" and source is not None:
                names = [source.prefix + name for name in names]
            yield separator + msgspec.json.encode("\n".join(names))[1:-1]
            separator = b"\\n"
        yield b'"'

    return Stream(chunks())


_ONE = "/v1/datasets/{datasetId}/tags/{tagId}"
OPERATIONS = (
    Operation(
        "GET",
        _ONE + "/filenames",
        "getFilenamesByTagId",
        get_filenames,
        "Names of the samples in a tag",
        reply=list[str],
    ),
    Operation(
        "GET",
        _ONE + "/export/basic/filenames",
        "exportTagToBasicFilenames",
        export_filenames,
        "Names of the samples in a tag, as text",
        reply=str,
        query=(
            integer("expiresIn"),
            text("accessControl"),
            NAME_FORMAT,
            boolean("includeMetaData"),
            text("format"),
            boolean("previewExample"),
            PAGE_SIZE,
            PAGE_OFFSET,
        ),
    ),
)
