"""What a datasource can do, and which names it never lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from watcher.platform.blobs import OpenBlob

HIDDEN_FOLDER = ".lightly"
TEMPORARY_SUFFIXES = (".tmp", ".part", ".partial", ".crdownload", ".filepart")


class ObjectSource(Protocol):
    """The objects of one datasource; names are relative to its `fullPath`."""

    @property
    def signs_slowly(self) -> bool:
        """Whether `sign_reads` is too slow for every row of a listing, of which few are read."""

    def scan(self, *, from_s: int, to_s: int) -> Iterator[tuple[int, str]]:
        """All objects last written in the window (both ends included, whole seconds), in any order.

        Raises:
            Fault: the datasource cannot be listed; nothing is ever left out silently.
        """

    def open(self, name: str) -> OpenBlob | None:
        """Opens an object; None if there is none."""

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""

    def sign_reads(self, names: Sequence[str], *, ttl_s: int) -> Sequence[str | None] | None:
        """URLs signed by the store itself; None, for some or for all, where the platform has to serve the object."""

    def verify(self, *, probe: str) -> dict[str, str]:
        """Tries each right (`canRead`, `canWrite`, `canList`, `canOverwrite`); gives the reasons of those missing."""


@dataclass(frozen=True, slots=True)
class Source:
    """A datasource as stored.

    Attributes:
        digest: changes with the settings.
        objects: its objects; None for LIGHTLY, which has none of its own.
        prefix: what stands before a name to make it complete, with a slash at the end if not empty.
    """

    digest: str
    objects: ObjectSource | None
    prefix: str


def is_listed(name: str) -> bool:
    """Whether an object of this name is one for the listing: not below `.lightly/`, not a temporary name."""
    if name.endswith(TEMPORARY_SUFFIXES):
        return False
    return HIDDEN_FOLDER not in name or HIDDEN_FOLDER not in name.split("/")[:-1]
