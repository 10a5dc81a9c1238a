"""All vectors of a watch anew, by the embedder that its settings name now; the only way to change it.

Vectors are stored as they come, so an interrupted pass goes on where it was; the dataset keeps its old embedder until
every sample has a vector of the new one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from watcher.database.engine import Database
from watcher.domain.clock import Clock
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import CancelledError
from watcher.domain.models import Sample, WatchConfig
from watcher.domain.sampling_rules import Lack
from watcher.embedders.base import Embedder
from watcher.jobs.embedding_csv import write_embedding_csv
from watcher.jobs.room import Room
from watcher.jobs.vector_source import VectorSource
from watcher.lightly import embeddings
from watcher.lightly.transport import Transport
from watcher.lightly.workflows.embeddings import upload_embeddings_csv, wait_until_processed
from watcher.lightly.workflows.listing import iter_pages
from watcher.store import control, lacks, samples, vectors, watches
from watcher.work_folders import open_work_folder

_CHUNK = 64
_PAGE = 500
_AHEAD_S = 86_400


@dataclass(frozen=True, slots=True)
class ReembedReport:
    """What a pass did.

    Attributes:
        embedder: whose vectors the dataset has now.
        n_computed: vectors computed by this pass; those of an interrupted one before it are not counted.
        n_rows: samples of the dataset.
    """

    embedder: str
    n_computed: int
    n_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reembedding:
    """One pass over one watch, while no daemon works on its store."""

    database: Database
    transport: Transport
    config: WatchConfig
    watch_id: int
    embedder: Embedder
    file_room: Room
    pixel_room: Room
    work_dir: Path
    clock: Clock
    stop: threading.Event
    actor: str
    say: Callable[[int], None]

    def run(self) -> ReembedReport:
        """Computes what is missing or was refused, uploads the embedding, and only then changes the dataset's embedder.

        One listing of the whole datasource gives fresh read URLs; samples that it no longer lists get the vectors of
        their thumbnails. Memory is a page of the listing and one batch of the embedder.

        Raises:
            WatcherError: the server, the store or the embedder failed; run it again to go on.
            CancelledError: `stop` was set; likewise.
        """
        with self.database.write() as session:
            watch = watches.load_watch_by_id(session, watch_id=self.watch_id)
            control.note_reembed(
                session, watch=watch, embedder=self.embedder.name, actor=self.actor, now_ms=self._now_ms()
            )
        crash_point("reembed.noted")
        rules = self.config.upload
        source = VectorSource(
            transport=self.transport,
            watch=watch,
            embedder=self.embedder,
            workers=rules.workers,
            max_bytes=rules.max_bytes,
            file_room=self.file_room,
            pixel_room=self.pixel_room,
            check=self._check,
        )
        n_computed = self._compute_listed(source)
        n_computed = self._compute_left(source, n_computed)
        n_rows = self._upload(source)
        with self.database.write() as session:
            control.finish_reembed(
                session, watch=watch, embedder=self.embedder.name, actor=self.actor, now_ms=self._now_ms()
            )
        crash_point("reembed.finished")
        return ReembedReport(embedder=self.embedder.name, n_computed=n_computed, n_rows=n_rows)

    def _compute_listed(self, source: VectorSource) -> int:
        n_computed = 0
        first, last = source.watch.listing.compute_range(0, int(self.clock.now_s()) + _AHEAD_S)
        for page in iter_pages(
            self.transport,
            dataset_id=source.watch.dataset_id,
            from_s=first,
            to_s=last,
            max_pages=self.config.poll.max_pages,
        ):
            urls = {row.file_name: row.read_url for row in page.rows}
            names = list(urls)
            with self.database.read() as session:
                rows = samples.load_samples_named(session, watch_id=self.watch_id, file_names=names)
                registered = [name for name in names if name in rows and rows[name].remote_id is not None]
                known = vectors.load_vectors(
                    session, watch_id=self.watch_id, embedder=self.embedder.name, file_names=registered
                )
            # The zero vector of a picture that was refused is no vector: the embedder may have been mended.
            usable = {name for name, vector in known.items() if vector.any()}
            missing = [replace(rows[name], read_url=urls[name]) for name in registered if name not in usable]
            n_computed = self._compute(source, missing, n_computed)
        return n_computed

    def _compute_left(self, source: VectorSource, n_computed: int) -> int:
        after = 0
        while True:
            with self.database.read() as session:
                page = vectors.load_names_without(
                    session,
                    watch_id=self.watch_id,
                    embedder=self.embedder.name,
                    after_id=after,
                    limit=_PAGE,
                )
                rows = samples.load_samples_named(
                    session, watch_id=self.watch_id, file_names=[name for _, name in page]
                )
            if not page:
                return n_computed
            after = page[-1][0]
            n_computed = self._compute(source, [rows[name] for _, name in page], n_computed)

    def _compute(self, source: VectorSource, missing: Sequence[Sample], n_computed: int) -> int:
        for start in range(0, len(missing), _CHUNK):
            self._check()
            chunk = missing[start : start + _CHUNK]
            computed = source.compute(chunk)
            ids = {sample.file_name: sample.id for sample in chunk}
            with self.database.write() as session:
                name = self.embedder.name
                vectors.forget_vectors(session, watch_id=self.watch_id, embedder=name, file_names=list(ids))
                vectors.record_vectors(session, watch_id=self.watch_id, embedder=name, rows=computed.rows)
                lacks.forget_lacks(session, lack=Lack.VECTOR, sample_ids=list(ids.values()))
                lacks.record_lacks(
                    session,
                    lack=Lack.VECTOR,
                    reasons={ids[file_name]: reason for file_name, reason in computed.refused.items()},
                    now_ms=self._now_ms(),
                )
            crash_point("reembed.vectors_stored")
            n_computed += len(chunk)
            self.say(n_computed)
        return n_computed

    def _upload(self, source: VectorSource) -> int:
        dataset_id, name = source.watch.dataset_id, f"{source.watch.name}-{self.embedder.name}"
        # One of that name is from the last time the dataset had this embedder, or from an interrupted pass.
        old = embeddings.fetch_embedding_by_name(self.transport, dataset_id=dataset_id, name=name)
        if old is not None:
            embeddings.delete_embedding(self.transport, dataset_id=dataset_id, embedding_id=old.id)
            crash_point("reembed.old_deleted")
        with open_work_folder(self.work_dir, prefix="reembed-") as folder:
            path = folder / "embeddings.csv"
            n_rows = write_embedding_csv(self.database, source, path)
            embedding_id = upload_embeddings_csv(self.transport, dataset_id=dataset_id, path=path, name=name)
            crash_point("reembed.csv_uploaded")
        wait_until_processed(
            self.transport,
            dataset_id=dataset_id,
            embedding_id=embedding_id,
            deadline_s=self.config.sampling.time_limit_s,
            cancel=self.stop,
        )
        return n_rows

    def _check(self) -> None:
        if self.stop.is_set():
            raise CancelledError("interrupted: run it again to go on where it was")

    def _now_ms(self) -> int:
        return int(self.clock.now_s() * 1000)
