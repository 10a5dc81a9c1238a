"""The embedder that each watch asked for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from watcher.domain.clock import Clock
from watcher.domain.models import Step, WatchConfig
from watcher.domain.step_rules import EmbedderKind
from watcher.embedders.base import Embedder
from watcher.embedders.command import CommandEmbedder
from watcher.embedders.descriptor import DescriptorEmbedder
from watcher.embedders.http import HttpEmbedder
from watcher.embedders.onnx import OnnxEmbedder
from watcher.images import ImageLimits


def build_embedders(
    configs: Iterable[WatchConfig], *, work_dir: Path, clock: Clock, ca_certs: Path | None = None
) -> dict[str, Embedder]:
    """The embedders by name of the watch; watches without the step `embed` have none.

    Args:
        configs: the watches.
        work_dir: for temporary files.
        clock: where time comes from.
        ca_certs: file of certificate authorities that services may have besides the usual ones.

    Raises:
        ConfigError: a model cannot be used; the text names the setting.
    """
    return {
        config.name: build_embedder(config, work_dir=work_dir, clock=clock, ca_certs=ca_certs)
        for config in configs
        if Step.EMBED in config.steps
    }


def build_embedder(
    config: WatchConfig, *, work_dir: Path, clock: Clock, ca_certs: Path | None = None
) -> Embedder:
    """The embedder of one watch; models are loaded here, programs started at their first use.

    Raises:
        ConfigError: a model cannot be used.
    """
    rules = config.embed
    limits = ImageLimits(max_bytes=config.upload.max_bytes, max_pixels=config.upload.max_pixels)
    if rules.kind is EmbedderKind.ONNX:
        return OnnxEmbedder(rules, limits=limits, where=f"WATCHER_WATCHES__{config.name.upper()}__EMBED__")
    if rules.kind is EmbedderKind.COMMAND:
        return CommandEmbedder(rules, limits=limits, work_dir=work_dir, clock=clock)
    if rules.kind is EmbedderKind.HTTP:
        return HttpEmbedder(rules, limits=limits, clock=clock, ca_certs=ca_certs)
    return DescriptorEmbedder(limits=limits)
