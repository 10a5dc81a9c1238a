"""What each step does. Brings numpy and Pillow, so it is loaded with the first run that is claimed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from watcher.domain.models import Step
from watcher.domain.pipeline import Outcome
from watcher.jobs.context import RunContext
from watcher.jobs.deliver import run_deliver
from watcher.jobs.embed import embed_shard, run_embed
from watcher.jobs.metadata import metadata_shard, run_metadata
from watcher.jobs.sampling import run_sampling
from watcher.jobs.upload import run_upload, upload_shard

STEPS: Mapping[Step, Callable[[RunContext], Outcome]] = {
    Step.UPLOAD: run_upload,
    Step.METADATA: run_metadata,
    Step.EMBED: run_embed,
    Step.SAMPLING: run_sampling,
    Step.DELIVER: run_deliver,
}
# What the shards of a large batch do; the run above follows once for the batch.
SHARDS: Mapping[Step, Callable[[RunContext], Outcome]] = {
    Step.UPLOAD: upload_shard,
    Step.METADATA: metadata_shard,
    Step.EMBED: embed_shard,
}
