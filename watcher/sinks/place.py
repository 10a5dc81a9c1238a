"""What may be shown of where a sink writes."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from watcher.domain.delivery import ManifestRules, SinkConfig


def describe_place(url: str) -> str:
    """Scheme and host of an address, since paths and queries of receivers are often secrets."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        return "another path"
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}"


def find_write_prefix(sink: SinkConfig, *, data_dir: Path) -> str | None:
    """Where a sink writes files, so that nobody takes them for input: a folder, or a bucket with its prefix.

    Returns:
        An absolute path or an address such as `s3://bucket/prefix`, without a slash at the end; None if the sink
        writes no files.
    """
    if not isinstance(sink.rules, ManifestRules):
        return None
    if sink.rules.is_bucket:
        return sink.rules.location.rstrip("/")
    return str((data_dir / sink.rules.location).resolve())
