"""Pictures of samples to vectors: read, prepared in threads, embedded many at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from watcher.domain.errors import ApiException, ImageError, ReadUrlRefusedError, SampleGoneError, WatcherError
from watcher.domain.models import Sample, Watch
from watcher.embedders.base import Embedder
from watcher.images import count_pixels
from watcher.jobs.alone import decodes_alone, suspecting
from watcher.jobs.context import RunContext
from watcher.jobs.room import Room
from watcher.lightly import samples as remote_samples
from watcher.lightly.parallel import open_pool
from watcher.lightly.signed_urls import read_url_bytes
from watcher.lightly.transport import Transport
from watcher.logs import get_logger
from watcher.store.vectors import Vector

_log = get_logger("embed")


@dataclass(frozen=True, slots=True)
class Computed:
    """What came of samples.

    Attributes:
        rows: (file name, vector) in the order asked for; the zero vector stands for none, since the embedding must
            have a row for every sample.
        refused: why a sample has none, by file name.
    """

    rows: list[tuple[str, Vector]]
    refused: dict[str, str]


@dataclass(frozen=True, slots=True)
class _NoPicture:
    """Neither picture nor thumbnail could be read."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSource:
    """Where the vectors of a watch's samples come from.

    Attributes:
        workers: pictures read and prepared at once.
        max_bytes: larger files are taken for unreadable.
        check: called between two pieces of work; raises when the work must stop.
        suspect: entered around the decoding of a sample's picture, which then has the process to itself; None where
            nobody is suspected.
    """

    transport: Transport
    watch: Watch
    embedder: Embedder
    workers: int
    max_bytes: int
    file_room: Room
    pixel_room: Room
    check: Callable[[], None]
    suspect: Callable[[Sample], AbstractContextManager[None]] | None = None

    @classmethod
    def of(cls, context: RunContext) -> VectorSource:
        """The source of a run."""
        rules = context.config.upload
        return cls(
            transport=context.transport,
            watch=context.watch,
            embedder=context.embedder,
            workers=rules.workers,
            max_bytes=rules.max_bytes,
            file_room=context.parts.file_room,
            pixel_room=context.parts.pixel_room,
            check=context.check,
            suspect=partial(suspecting, context) if decodes_alone(context.run) else None,
        )

    def compute(self, samples: Sequence[Sample]) -> Computed:
        """The vectors of registered samples.

        The picture counts, or the server's thumbnail where it can no longer be read. Memory: the prepared pictures of
        one batch of the embedder, and `workers` files.

        Raises:
            WatcherError: the server or the embedder failed.
        """
        computed = Computed([], {})
        size = self.embedder.batch_size
        with open_pool(self.workers, name="embed") as pool:
            for start in range(0, len(samples), size):
                part = samples[start : start + size]
                prepared = list(pool.map(self._prepare, part))
                done = self._embed([sample.file_name for sample in part], prepared)
                computed.rows.extend(done.rows)
                computed.refused.update(done.refused)
        return computed

    def compute_foreign(self, file_names: Sequence[str]) -> Computed:
        """The same for samples that somebody else put into the dataset, from their thumbnails."""
        prepared: list[Any] = []
        for name in file_names:
            self.check()
            remote = remote_samples.fetch_sample_by_file_name(
                self.transport, dataset_id=self.watch.dataset_id, file_name=name
            )
            if remote is None:
                raise WatcherError(
                    f"the mapping of the dataset names {name!r}, but the server knows no such sample"
                )
            prepared.append(self._prepare_thumbnail(remote.id))
        return self._embed(file_names, prepared)

    def _embed(self, file_names: Sequence[str], prepared: Sequence[Any]) -> Computed:
        rows: list[Vector] = [np.zeros(self.embedder.dim, dtype=np.float32) for _ in file_names]
        refused = {
            file_names[place]: picture.reason
            for place, picture in enumerate(prepared)
            if isinstance(picture, _NoPicture)
        }
        places = [place for place, picture in enumerate(prepared) if not isinstance(picture, _NoPicture)]
        size = self.embedder.batch_size
        for start in range(0, len(places), size):
            self.check()
            chunk = places[start : start + size]
            vectors = self.embedder.embed_prepared([prepared[place] for place in chunk])
            for place, vector in zip(chunk, vectors, strict=True):
                if not np.isfinite(vector).all():
                    refused[file_names[place]] = "the embedder refused the picture"
                elif not vector.any():
                    refused[file_names[place]] = "the embedder gave the zero vector, which stands for none"
                else:
                    rows[place] = vector
        for name, reason in refused.items():
            _log.warning("sample.without_vector", file_name=name, reason=reason)
        return Computed(list(zip(file_names, rows, strict=True)), refused)

    def _prepare(self, sample: Sample) -> Any:
        self.check()
        try:
            return self._read(sample.read_url, sample)
        except (ReadUrlRefusedError, SampleGoneError, ImageError) as error:
            _log.info("image.replaced_by_thumbnail", file_name=sample.file_name, reason=str(error))
        assert sample.remote_id is not None
        return self._prepare_thumbnail(sample.remote_id)

    def _read(self, url: str, sample: Sample | None = None) -> Any:
        with self.file_room.share(self.check) as share:
            body = read_url_bytes(self.transport, url, max_bytes=self.max_bytes, on_size=share.set).body
            limit = self.pixel_room.limit
            if sample is None or self.suspect is None:
                with self.pixel_room.hold(min(count_pixels(body), limit), self.check):
                    return self.embedder.prepare(body)
            with self.pixel_room.hold(limit, self.check), self.suspect(sample):
                return self.embedder.prepare(body)

    def _prepare_thumbnail(self, sample_id: str) -> Any:
        """`_NoPicture` where there is no thumbnail that can be read."""
        try:
            url = remote_samples.fetch_read_url(
                self.transport, dataset_id=self.watch.dataset_id, sample_id=sample_id, kind="thumbnail"
            )
            return self._read(url)
        except (SampleGoneError, ImageError, ApiException) as error:
            if error.retryable or (isinstance(error, ApiException) and error.status in {401, 403}):
                raise
            return _NoPicture(f"neither its picture nor its thumbnail can be read: {error}")
