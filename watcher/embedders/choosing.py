"""The embedder that each watch asked for."""

from __future__ import annotations

from collections.abc import Iterable

from watcher.domain.models import Step, WatchConfig
from watcher.embedders.base import Embedder
from watcher.embedders.descriptor import DescriptorEmbedder
from watcher.images import ImageLimits


def build_embedders(configs: Iterable[WatchConfig]) -> dict[str, Embedder]:
    """The embedders by name of the watch; watches without the step `embed` have none."""
    return {config.name: build_embedder(config) for config in configs if Step.EMBED in config.steps}


def build_embedder(config: WatchConfig) -> Embedder:
    """The embedder of one watch."""
    limits = ImageLimits(max_bytes=config.upload.max_bytes, max_pixels=config.upload.max_pixels)
    return DescriptorEmbedder(limits=limits)
