"""What goes by and by: the rows and files of deleted datasets, jobs that ended long ago, files that nobody needs.

Everything it does can be done again and by several replicas at once. A deleted dataset keeps its row until no upload
that began before can be under way any more: so a crash at any moment leaves neither rows nor files behind.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from watcher.domain.errors import StoreError
from watcher.logs import get_logger
from watcher.platform.store import datasets as dataset_store
from watcher.platform.store import jobs as job_store
from watcher.platform.transfers import MAX_UPLOAD_S

if TYPE_CHECKING:
    from watcher.platform.context import Platform

_log = get_logger(__name__)
_EVERY_S = 600.0
_STALE_S = 86_400.0
_DAY_MS = 86_400_000
# Some tenths of a second of the database's only pen, where that is SQLite; then others have their turn.
_SAMPLES_AT_ONCE = 5000
_PAUSE_S = 0.05
_JOBS_AT_ONCE = 1000
_GRACE_MS = int(MAX_UPLOAD_S * 1000) + 300_000


class Cleaner:
    """A thread that cleans up at the start, when something was deleted, and every ten minutes."""

    def __init__(self, platform: Platform) -> None:
        """Keeps the parts.

        Args:
            platform: whose rows and files.
        """
        self._platform = platform
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="platform-cleaner", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Ends after the transaction under way; does not wait."""
        self._stop.set()
        self._platform.cleaning_due.set()

    def stop(self, timeout_s: float) -> None:
        """Ends the thread."""
        self.ask_to_stop()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.clean()
            except Exception:  # noqa: BLE001 - the thread must outlive any one fault
                _log.exception("platform.cleaning_crashed")
            self._platform.cleaning_due.wait(_EVERY_S)
            self._platform.cleaning_due.clear()

    def clean(self) -> None:
        """Does all there is to do; what fails is left for the next time."""
        try:
            self._forget_jobs()
            self._platform.blobs.remove_stale(before_s=self._platform.clock.now_s() - _STALE_S)
            with self._platform.database.read() as session:
                deleted = dataset_store.load_deleted(session)
        except (StoreError, OSError) as error:
            _log.warning("platform.cleaning_failed", error=str(error))
            return
        for dataset_id in deleted:
            try:
                self._remove(dataset_id)
            except StoreError as error:
                # One that resists does not hold up the others.
                _log.warning("platform.cleaning_failed", dataset=dataset_id, error=str(error))

    def _forget_jobs(self) -> None:
        before_ms = self._now_ms() - int(self._platform.config.job_retention_days * _DAY_MS)
        n_deleted = _JOBS_AT_ONCE
        while n_deleted == _JOBS_AT_ONCE and not self._stop.is_set():
            with self._platform.database.write() as session:
                n_deleted = job_store.delete_ended(session, before_ms=before_ms, limit=_JOBS_AT_ONCE)

    def _remove(self, dataset_id: str) -> None:
        n_deleted = 1
        while n_deleted:
            if self._stop.wait(_PAUSE_S):
                return
            with self._platform.database.write() as session:
                row = dataset_store.take_deleted(session, dataset_id=dataset_id)
                if row is None:
                    return
                n_deleted = dataset_store.delete_some_samples(
                    session, dataset_id=dataset_id, limit=_SAMPLES_AT_ONCE
                )
                if not n_deleted and row.emptied_at is None:
                    dataset_store.delete_parts(session, dataset_id=dataset_id)
        self._platform.blobs.delete_dataset(dataset_id)
        with self._platform.database.write() as session:
            row = dataset_store.take_deleted(session, dataset_id=dataset_id)
            if row is None:
                return
            if row.emptied_at is None:
                values = {"emptied_at": self._now_ms(), "n_samples": 0}
                dataset_store.update_dataset(session, dataset_id=dataset_id, values=values)
                _log.info("dataset.emptied", dataset=dataset_id, n_samples=row.n_samples)
            elif row.emptied_at + _GRACE_MS <= self._now_ms():
                dataset_store.delete_dataset(session, dataset_id=dataset_id)

    def _now_ms(self) -> int:
        return int(self._platform.clock.now_s() * 1000)
