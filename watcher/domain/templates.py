"""Names and values made from a sample's own: sidecars beside pictures, placeholders in metadata. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from watcher.domain.errors import ConfigError

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SIDECAR_PARTS = frozenset({"folder", "stem", "name"})
_KNOWN = frozenset({"watch", "file_name", "folder", "name", "stem", "arrived", "arrived_s"})
_PICTURES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".png",
        ".webp",
        ".tif",
        ".tiff",
        ".bmp",
        ".ppm",
        ".pgm",
        ".pbm",
        ".gif",
        ".avif",
        ".jp2",
    }
)


def find_sidecar_suffix(pattern: str, *, variable: str = "the pattern") -> str:
    """What every sidecar's name ends with, and no picture's: the text behind the last placeholder.

    Raises:
        ConfigError: the pattern names no part of the picture, an unknown one, or has no ending such as `.json`.
    """
    found = _PLACEHOLDER.findall(pattern)
    unknown = sorted(set(found) - _SIDECAR_PARTS)
    if unknown:
        raise ConfigError(
            f"{variable}={pattern}: there is no {{{unknown[0]}}}, only {{folder}}, {{stem}}, {{name}}"
        )
    if not {"stem", "name"} & set(found):
        raise ConfigError(
            f"{variable}={pattern} is one name for all pictures: put {{stem}} or {{name}} into it"
        )
    suffix = pattern[[match.end() for match in _PLACEHOLDER.finditer(pattern)][-1] :]
    if (
        not suffix.startswith(".")
        or len(suffix) < 2
        or PurePosixPath(f"a{suffix}").suffix.lower() in _PICTURES
    ):
        raise ConfigError(
            f"{variable}={pattern} must end like no picture does, for example {{folder}}{{stem}}.json: files that end "
            "so are not taken for pictures"
        )
    return suffix


def compute_sidecar_name(pattern: str, file_name: str) -> str:
    """The name of the sidecar of a picture.

    `{folder}` is the path with its last slash, or empty; `{name}` the last part; `{stem}` that without its ending.
    """
    parts = _split(file_name)
    return _PLACEHOLDER.sub(lambda match: parts[match[1]], pattern)


def _split(file_name: str) -> dict[str, str]:
    folder, slash, name = file_name.rpartition("/")
    return {"folder": folder + slash, "name": name, "stem": PurePosixPath(name).stem}


def check_template(values: Any, *, groups: Collection[str], variable: str) -> None:
    """Raises ConfigError for a placeholder that nothing fills."""
    if isinstance(values, str):
        known = _KNOWN | set(groups)
        for name in _PLACEHOLDER.findall(values):
            if name not in known:
                raise ConfigError(
                    f"{variable}: nothing fills {{{name}}}; known are {', '.join(sorted(known))}"
                )
    elif isinstance(values, Mapping):
        for value in values.values():
            check_template(value, groups=groups, variable=variable)
    elif isinstance(values, list):
        for value in values:
            check_template(value, groups=groups, variable=variable)


def fill_template(
    values: Mapping[str, Any], *, watch: str, file_name: str, arrived_ms: int, pattern: str | None
) -> dict[str, Any] | None:
    """The values with their placeholders filled; None if the pattern does not fit the file name.

    Args:
        values: a JSON object; only texts are looked at, whatever their depth.
        watch: for `{watch}`.
        file_name: for `{file_name}`, `{folder}`, `{name}`, `{stem}`.
        arrived_ms: when the sample was discovered, unix milliseconds; for `{arrived}` (ISO 8601, UTC) and
            `{arrived_s}`.
        pattern: searched in the file name; its named groups are placeholders, empty where a group took no part.
    """
    groups: dict[str, str] = {}
    if pattern is not None:
        match = re.search(pattern, file_name)
        if match is None:
            return None
        groups = {name: value or "" for name, value in match.groupdict().items()}
    arrived = datetime.fromtimestamp(arrived_ms / 1000, UTC).isoformat(timespec="milliseconds")
    known = {
        "watch": watch,
        "file_name": file_name,
        "arrived": arrived.replace("+00:00", "Z"),
        "arrived_s": str(arrived_ms // 1000),
        **_split(file_name),
        **groups,
    }

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return _PLACEHOLDER.sub(lambda match: known[match[1]], value)
        if isinstance(value, Mapping):
            return {key: fill(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [fill(entry) for entry in value]
        return value

    filled: dict[str, Any] = fill(values)
    return filled
