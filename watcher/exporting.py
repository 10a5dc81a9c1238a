"""The samples of a tag as `lightly` exports them."""

from __future__ import annotations

import msgspec

from watcher.domain.errors import ConfigError
from watcher.lightly import datasets, tags
from watcher.lightly.transport import Transport
from watcher.lightly.workflows.tag_export import fetch_lasting_urls


def export_tag(transport: Transport, *, dataset: str, tag: str, with_read_urls: bool) -> str:
    """Names a line each; or a JSON list of `{"fileName", "readUrl"}`, with addresses that do not expire.

    Args:
        transport: the API.
        dataset: name of the dataset.
        tag: name of the tag.
        with_read_urls: whether addresses are wanted.

    Raises:
        ConfigError: there is no such dataset or tag.
        WatcherError: the server failed, or exports no such thing.
    """
    found = datasets.fetch_datasets_by_name(transport, name=dataset, exact=True)
    if not found:
        raise ConfigError(f"there is no dataset {dataset!r} on the server: has the watch been polled yet?")
    known = {each.name: each.id for each in tags.fetch_tags(transport, dataset_id=found[0].id)}
    if tag not in known:
        raise ConfigError(
            f"the dataset {dataset!r} has no tag {tag!r}; the newest are: {', '.join(sorted(known)[-5:])}"
        )
    if not with_read_urls:
        text = tags.fetch_tag_file_names_text(transport, dataset_id=found[0].id, tag_id=known[tag])
        return f"{text}\n" if text else ""
    pairs = fetch_lasting_urls(transport, dataset_id=found[0].id, tag_id=known[tag])
    rows = [{"fileName": name, "readUrl": url} for name, url in pairs]
    return msgspec.json.format(msgspec.json.encode(rows), indent=1).decode() + "\n"
