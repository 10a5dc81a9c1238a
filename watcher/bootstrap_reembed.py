"""Settings -> the pass that computes all vectors of a watch anew."""

from __future__ import annotations

import threading
from collections.abc import Callable

from watcher.data_folder import work_dir
from watcher.database.engine import Database
from watcher.domain.clock import Clock
from watcher.domain.errors import ConfigError
from watcher.domain.models import Step, WatchConfig
from watcher.embedders.choosing import build_embedder
from watcher.jobs.reembed import Reembedding
from watcher.jobs.room import Room
from watcher.lightly.transport import Transport
from watcher.settings.root import Settings


def build_reembedding(
    settings: Settings,
    config: WatchConfig,
    *,
    database: Database,
    transport: Transport,
    watch_id: int,
    clock: Clock,
    stop: threading.Event,
    actor: str,
    say: Callable[[int], None],
) -> Reembedding:
    """What computes all vectors of a watch anew.

    Raises:
        ConfigError: the watch has no step `embed`, or its model cannot be used.
    """
    if Step.EMBED not in config.steps:
        raise ConfigError(
            f"the watch {config.name!r} has no step embed: add it to WATCHER_WATCHES__{config.name.upper()}__STEPS"
        )
    return Reembedding(
        database=database,
        transport=transport,
        config=config,
        watch_id=watch_id,
        embedder=build_embedder(
            config, work_dir=work_dir(settings), clock=clock, ca_certs=settings.lightly_ca_certs
        ),
        file_room=Room(settings.runs.max_bytes_in_flight),
        pixel_room=Room(settings.runs.max_pixels_in_flight),
        work_dir=work_dir(settings),
        clock=clock,
        stop=stop,
        actor=actor,
        say=say,
    )
