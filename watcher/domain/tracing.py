"""Which trace a batch belongs to: derived from the batch, so that any process finds the same one."""

from __future__ import annotations

import hashlib

from watcher.domain.models import Batch, Watch


def compute_trace_id(watch: Watch, batch: Batch) -> str:
    """The 32 hexadecimal digits of the trace of a batch; the same in every process and after every restart."""
    name = f"{watch.server}|{watch.dataset_id}|{batch.key}|{batch.created_ms}"
    return hashlib.sha256(name.encode()).hexdigest()[:32]
