"""The samples of a tag with addresses that never expire."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from watcher.domain.bitmask import BitMask
from watcher.domain.errors import ProtocolError
from watcher.lightly import tags
from watcher.lightly.mappings import iter_file_names
from watcher.lightly.transport import Transport


def fetch_lasting_urls(
    transport: Transport, *, dataset_id: str, tag_id: str, check: Callable[[], None] = lambda: None
) -> list[tuple[str, str]]:
    """(file name, address) of each sample of a tag, in the server's order.

    The server exports names as lines. Where one holds a line's end, they are taken by the mask of the tag, and believed
    if they make the same text.

    Args:
        transport: the API.
        dataset_id: of the tag.
        tag_id: the tag.
        check: called between requests.

    Raises:
        ProtocolError: names and addresses do not belong together.
        ApiException: the server exports no such thing.
    """
    text = _fetch(transport, dataset_id, tag_id, "NAME")
    check()
    urls = _split(_fetch(transport, dataset_id, tag_id, "REDIRECTED_READ_URL"))
    names = _split(text)
    if len(names) != len(urls):
        check()
        names = list(_iter_names(transport, dataset_id, tag_id, check))
        if len(names) != len(urls) or "\n".join(names) != text:
            raise ProtocolError("the server exports another number of names than of addresses for one tag")
    return list(zip(names, urls, strict=True))


def _iter_names(
    transport: Transport, dataset_id: str, tag_id: str, check: Callable[[], None]
) -> Iterator[str]:
    mask = BitMask.from_hex(tags.fetch_tag(transport, dataset_id=dataset_id, tag_id=tag_id).bit_mask_data)
    wanted = iter(mask)
    position = next(wanted, None)
    offset = 0
    for page in iter_file_names(transport, dataset_id=dataset_id):
        check()
        while position is not None and position < offset + len(page):
            yield page[position - offset]
            position = next(wanted, None)
        offset += len(page)


def _fetch(transport: Transport, dataset_id: str, tag_id: str, form: str) -> str:
    return tags.fetch_tag_file_names_text(transport, dataset_id=dataset_id, tag_id=tag_id, name_format=form)


def _split(text: str) -> list[str]:
    return text.split("\n") if text else []
