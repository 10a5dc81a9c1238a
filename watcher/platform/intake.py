"""New samples, many to a transaction: those that wait for the disk together are written together.

The first request to arrive writes, for itself and for those that came meanwhile; then it hands the pen to the next
one that waits. So a lone request is written at once, and a crowd shares the cost of each commit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from watcher.database.engine import Database
from watcher.platform.faults import Fault, unavailable, unknown
from watcher.platform.secrets import new_id
from watcher.platform.store import datasets as dataset_store
from watcher.platform.store import samples as store
from watcher.platform.store import users as user_store

# What a column of the database can hold.
MAX_TOTAL_BYTES = 2**63 - 1
_MAX_BATCH = 200
_WAIT_S = 60.0


def build_too_many_bytes() -> Fault:
    """Refuses a size that would make the sum of a dataset too large to be stored."""
    text = f"the dataset is full: its samples have {MAX_TOTAL_BYTES} bytes together at the most"
    return Fault(422, "DATASET_AT_MAX_CAPACITY", text)


class _Waiting:
    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row
        self.turn = threading.Event()
        self.sample_id: str | None = None
        self.error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.sample_id is not None or self.error is not None


class Intake:
    """Creates samples; safe to share between threads."""

    def __init__(self, database: Database, *, max_samples: int) -> None:
        """Starts empty.

        Args:
            database: of the platform.
            max_samples: largest dataset, unless its owner has a limit of their own.
        """
        self._database = database
        self._max_samples = max_samples
        self._queues: dict[tuple[str, str], deque[_Waiting]] = {}
        self._lock = threading.Lock()

    def create(self, *, dataset_id: str, user_id: str, row: dict[str, Any]) -> str:
        """Gives the id of the sample of that name, new or present.

        Args:
            dataset_id: to which dataset.
            user_id: who asks.
            row: the columns of the sample but its id, dataset and position.

        Raises:
            Fault: there is no such dataset for the user, it is full, or the wait took over a minute.
        """
        key = (dataset_id, user_id)
        waiting = _Waiting(row)
        with self._lock:
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = deque()
                waiting.turn.set()
                batch = [waiting]
            else:
                queue.append(waiting)
                batch = []
        if not waiting.turn.wait(_WAIT_S):
            self._give_up(key, waiting)
        if not waiting.is_done:
            self._lead(key, batch or [waiting])
        if waiting.error is not None:
            raise waiting.error
        assert waiting.sample_id is not None
        return waiting.sample_id

    def _give_up(self, key: tuple[str, str], waiting: _Waiting) -> None:
        with self._lock:
            queue = self._queues.get(key, ())
            is_queued = waiting in queue
            if isinstance(queue, deque) and is_queued:
                queue.remove(waiting)
        # If it is not queued, a batch under way holds it, which may still succeed.
        if is_queued or not waiting.turn.wait(_WAIT_S):
            raise unavailable("the server is too busy to take more samples: try again later")

    def _lead(self, key: tuple[str, str], batch: list[_Waiting]) -> None:
        with self._lock:
            queue = self._queues[key]
            while queue and len(batch) < _MAX_BATCH:
                batch.append(queue.popleft())
        try:
            self._write(key, batch)
        finally:
            for waiting in batch:
                if not waiting.is_done:
                    waiting.error = unavailable("the sample could not be stored: try again")
                waiting.turn.set()
            with self._lock:
                if queue:
                    queue.popleft().turn.set()
                else:
                    del self._queues[key]

    def _write(self, key: tuple[str, str], batch: Sequence[_Waiting]) -> None:
        try:
            with self._database.write() as session:
                found = self._insert(session, key, batch)
        except Exception as error:  # noqa: BLE001 - belongs to the requests that wait
            if len(batch) > 1:
                # One of them is at fault; the others shall not pay for it.
                for waiting in batch:
                    self._write(key, [waiting])
                return
            batch[0].error = error
            return
        for waiting, outcome in zip(batch, found, strict=True):
            if isinstance(outcome, Fault):
                waiting.error = outcome
            else:
                waiting.sample_id = outcome

    def _insert(self, session: Session, key: tuple[str, str], batch: Sequence[_Waiting]) -> list[str | Fault]:
        dataset_id, user_id = key
        dataset = dataset_store.load_dataset(session, dataset_id=dataset_id, user_id=user_id, lock=True)
        if dataset is None:
            raise unknown("DATASET_UNKNOWN", "there is no such dataset for this token")
        own = user_store.load_max_samples(session, user_id=dataset.user_id)
        limit = self._max_samples if own is None else own
        names = {waiting.row["file_name"] for waiting in batch}
        ids = store.load_ids_by_name(session, dataset_id=dataset_id, names=names)
        outcomes: list[str | Fault] = []
        rows: list[dict[str, Any]] = []
        size: int = dataset.size_in_bytes
        for waiting in batch:
            name = waiting.row["file_name"]
            position = dataset.n_samples + len(rows)
            if name not in ids:
                if position >= limit:
                    text = f"the dataset is full: it holds {limit} samples at the most"
                    outcomes.append(Fault(422, "DATASET_AT_MAX_CAPACITY", text))
                    continue
                if size + waiting.row["size_in_bytes"] > MAX_TOTAL_BYTES:
                    outcomes.append(build_too_many_bytes())
                    continue
                size += waiting.row["size_in_bytes"]
                ids[name] = new_id(waiting.row["created_at"] / 1000)
                rows.append({**waiting.row, "id": ids[name], "dataset_id": dataset_id, "position": position})
            outcomes.append(ids[name])
        if rows:
            store.insert_samples(session, rows=rows)
            changes = {
                "n_samples": dataset.n_samples + len(rows),
                "size_in_bytes": size,
                "modified_at": max(row["created_at"] for row in rows),
            }
            dataset_store.update_dataset(session, dataset_id=dataset_id, values=changes)
        return outcomes
