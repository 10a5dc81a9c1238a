"""Nearest neighbours among vectors that come in blocks: exact, or by an index on disk."""

from __future__ import annotations

from watcher.neighbours.exact import NearestSoFar

__all__ = ["NearestSoFar"]
