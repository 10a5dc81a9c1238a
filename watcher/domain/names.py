"""Which file names a datasource may list."""

from __future__ import annotations

# Below it the servers of this protocol keep what they write into a datasource themselves.
OWN_OUTPUT = ".lightly/"
_LONGEST = 1024
# An entry of Postgres's index holds up to 2704 bytes, its other columns included.
_LONGEST_BYTES = 2048


def can_be_stored(file_name: str) -> bool:
    """Whether every store can keep the name in an index; of one it cannot keep, only a log line remains."""
    try:
        n_bytes = len(file_name.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return 0 < n_bytes <= _LONGEST_BYTES and "\x00" not in file_name


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
    if not can_be_stored(file_name):
        return f"the name has more than {_LONGEST_BYTES} bytes or is no Unicode text"
    return None
