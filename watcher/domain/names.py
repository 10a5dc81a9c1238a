"""Which file names a datasource may list."""

from __future__ import annotations

_LONGEST = 1024


def explain_bad_name(file_name: str) -> str | None:
    """Why a listed name cannot be processed; None if it can.

    Names are opaque: spaces, `+`, `%`, any script and leading dots are all fine. Refused are only those that leave
    the datasource or that no store can hold.
    """
    if not file_name:
        return "the name is empty"
    if len(file_name) > _LONGEST:
        return f"the name has {len(file_name)} characters, more than {_LONGEST}"
    if file_name.startswith("/") or ".." in file_name.split("/") or "." in file_name.split("/"):
        return "the name is absolute or has dot parts, so it could leave the datasource"
    if "\x00" in file_name:
        return "the name holds a NUL character"
    return None
