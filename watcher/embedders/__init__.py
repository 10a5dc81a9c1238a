"""Pictures to vectors that lie near each other when the pictures look alike."""

from __future__ import annotations

from watcher.embedders.base import EmbeddedBatch, Embedder
from watcher.embedders.descriptor import DescriptorEmbedder

__all__ = ["DescriptorEmbedder", "EmbeddedBatch", "Embedder"]
