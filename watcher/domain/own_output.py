"""Which listed names are manifests that this daemon itself wrote below the listed prefix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from watcher.domain.delivery import ManifestRules
from watcher.domain.models import WatchConfig
from watcher.domain.names import OWN_OUTPUT, can_be_stored

# What servers of this protocol write themselves; every pattern passes it over.
SERVERS_OUTPUT = re.compile(re.escape(OWN_OUTPUT))
# Names that one cloud's addresses begin with.
_SCHEMES = {"azure": "az", "abfs": "az", "abfss": "az", "gcs": "gs", "s3a": "s3", "obs": "s3"}


def build_own_output(source: str | None, configs: Iterable[WatchConfig]) -> re.Pattern[str]:
    """A pattern whose `match` tells a name of the datasource that is own output.

    Only the manifests themselves are meant, `<batch>.<format>` and `<batch>-2.<format>` right in the place that a sink
    of any of the watches names: images that others put beside them are input like all others.

    Args:
        source: address of the datasource, such as `s3://bucket/incoming`; None if it is unknown or no bucket.
        configs: all watches of this daemon.
    """
    patterns = [SERVERS_OUTPUT.pattern]
    for config in configs:
        for sink in config.deliver.sinks:
            if not isinstance(sink.rules, ManifestRules) or not sink.rules.is_bucket or source is None:
                continue
            below = find_relative(sink.rules.location, source=source)
            if below is not None:
                key = f"{re.escape(below)}{re.escape(config.name)}-[0-9]+(-[0-9])?"
                patterns.append(rf"{key}{re.escape(f'.{sink.rules.format}')}\Z")
    return re.compile("|".join(patterns))


def is_input(file_name: str, *, own_output: re.Pattern[str], is_sidecar: Callable[[str], bool]) -> bool:
    """Whether a listed name belongs into the ledger."""
    return can_be_stored(file_name) and not own_output.match(file_name) and not is_sidecar(file_name)


def find_relative(place: str, *, source: str) -> str | None:
    """Where a place lies as seen from the datasource: "" or a prefix with a slash at its end; None if outside."""
    outer, inner = _split(source), _split(place)
    if inner[: len(outer)] != outer:
        return None
    return "".join(f"{part}/" for part in inner[len(outer) :])


def _split(address: str) -> list[str]:
    scheme, _, path = address.partition("://")
    return [_SCHEMES.get(scheme.lower(), scheme.lower()), *(part for part in path.split("/") if part)]
