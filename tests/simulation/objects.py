"""The datasource of the simulated world: objects that arrive, show up late, are replaced, cut short and deleted."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

N_PICTURES = 24


@functools.cache
def draw_picture(number: int) -> bytes:
    """A small sound JPEG; the same for the same number."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


@dataclass
class Version:
    """One writing of an object.

    Attributes:
        modified_s: its time stamp by the datasource's clock, unix seconds.
        visible_at: true time from which listings and reads show it.
        is_sound: whether its bytes are a whole picture.
    """

    modified_s: int
    visible_at: float
    body: bytes
    is_sound: bool = True


@dataclass
class StoredObject:
    """A name with its versions, newest last; `deleted_at` is the true time from which it is gone."""

    name: str
    versions: list[Version] = field(default_factory=list)
    deleted_at: float | None = None

    def find_version(self, now: float) -> Version | None:
        """What a reader sees."""
        if self.deleted_at is not None and now >= self.deleted_at:
            return None
        seen = [version for version in self.versions if version.visible_at <= now]
        return seen[-1] if seen else None


class Datasource:
    """All objects of one dataset, by name."""

    def __init__(self) -> None:
        self.objects: dict[str, StoredObject] = {}

    def put(self, name: str, version: Version) -> StoredObject:
        stored = self.objects.setdefault(name, StoredObject(name))
        stored.versions.append(version)
        return stored

    def list(self, now: float, from_s: int, to_s: int) -> list[tuple[str, Version]]:
        """What a listing shows, in no particular order."""
        found = []
        for name, stored in self.objects.items():
            version = stored.find_version(now)
            if version is not None and from_s <= version.modified_s <= to_s:
                found.append((name, version))
        return found
