"""The embedder that each watch asked for; what reads pictures is loaded when an embedder needs it, not before."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watcher.domain.clock import Clock
from watcher.domain.models import Step, WatchConfig
from watcher.domain.step_rules import EmbedderKind
from watcher.embedders import descriptor_facts
from watcher.embedders.base import Embedder
from watcher.embedders.descriptor_facts import compute_grey_suffix

if TYPE_CHECKING:
    from watcher.embedders.base import Vectors
    from watcher.embedders.descriptor import DescriptorEmbedder
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
    if rules.kind is EmbedderKind.DESCRIPTOR:
        return LateDescriptor(config)
    limits = _build_limits(config)
    if rules.kind is EmbedderKind.ONNX:
        from watcher.embedders.onnx import OnnxEmbedder  # noqa: PLC0415 - see above

        return OnnxEmbedder(rules, limits=limits, where=f"WATCHER_WATCHES__{config.name.upper()}__EMBED__")
    if rules.kind is EmbedderKind.COMMAND:
        from watcher.embedders.command import CommandEmbedder  # noqa: PLC0415 - see above

        return CommandEmbedder(rules, limits=limits, work_dir=work_dir, clock=clock)
    from watcher.embedders.http import HttpEmbedder  # noqa: PLC0415 - see above

    return HttpEmbedder(rules, limits=limits, clock=clock, ca_certs=ca_certs)


def _build_limits(config: WatchConfig) -> ImageLimits:
    from watcher.images import ImageLimits  # noqa: PLC0415 - numpy and Pillow are twenty megabytes

    rules = config.upload
    return ImageLimits(max_bytes=rules.max_bytes, max_pixels=rules.max_pixels, grey_bits=rules.grey_bits)


class LateDescriptor:
    """The descriptor, which is every watch's unless it asks for another; loaded at the first picture."""

    dim = descriptor_facts.DIM
    batch_size = descriptor_facts.CHUNK_IMAGES

    def __init__(self, config: WatchConfig) -> None:
        self._config = config
        self.name = descriptor_facts.NAME + compute_grey_suffix(config.upload.grey_bits)

    @functools.cached_property
    def _descriptor(self) -> DescriptorEmbedder:
        from watcher.embedders.descriptor import DescriptorEmbedder  # noqa: PLC0415 - see above

        return DescriptorEmbedder(limits=_build_limits(self._config))

    def prepare(self, content: bytes) -> Any:
        """See `DescriptorEmbedder`.

        Raises:
            ImageError: the file is no picture this program can read.
        """
        return self._descriptor.prepare(content)

    def embed_prepared(self, prepared: Sequence[Any]) -> Vectors:
        """See `DescriptorEmbedder`."""
        return self._descriptor.embed_prepared(prepared)
