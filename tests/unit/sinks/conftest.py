from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.receivers import Receiver, open_receiver
from watcher.domain.clock import SystemClock
from watcher.domain.delivery import compute_delivery_id, compute_picks_digest
from watcher.sinks.base import Handover, PickedSample, PickLine, SinkParts

DELIVERY_ID = compute_delivery_id(dataset_id="d", batch_key="gate-000001", sink="s", picks_digest=None)


def line(name: str = "a.jpg", rank: int = 1) -> PickLine:
    return PickLine(
        file_name=name,
        read_url=f"https://bucket.example.com/{rank}?sig=1",
        watch="gate",
        dataset_id="d",
        tag="gate-000001",
        rank=rank,
        batch="gate-000001",
        reason={"distance": 0.5},
    )


@dataclass
class Batch:
    """Picks of the names given, and what a sink tells of them."""

    names: list[str]
    progress: dict[str, Any] = field(default_factory=dict)
    saved: list[dict[str, Any]] = field(default_factory=list)
    fail_after: int | None = None

    def iter_chunks(self, size: int, after_rank: int) -> Iterator[list[PickedSample]]:
        picks = [PickedSample(rank, line(name, rank)) for rank, name in enumerate(self.names, 1)]
        rest = picks[after_rank:]
        for start in range(0, len(rest), size):
            if self.fail_after is not None and start >= self.fail_after:
                raise RuntimeError("no more")
            yield rest[start : start + size]

    def save(self, progress: Any) -> None:
        self.progress = dict(progress)
        self.saved.append(self.progress)

    def handover(self) -> Handover:
        return Handover(
            id=DELIVERY_ID,
            watch="gate",
            dataset_id="d",
            batch_key="gate-000001",
            tag="gate-000001",
            n_picks=len(self.names),
            picks_digest=compute_picks_digest(self.names),
            progress=self.progress,
            source=None,
            iter_chunks=self.iter_chunks,
            save_progress=self.save,
            record_tasks=lambda tasks: None,
            check=lambda: None,
        )


@pytest.fixture
def parts(tmp_path: Path) -> SinkParts:
    (tmp_path / "work").mkdir()
    return SinkParts(data_dir=tmp_path, work_dir=tmp_path / "work", clock=SystemClock(), connect_timeout_s=5)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with open_receiver() as opened:
        yield opened
