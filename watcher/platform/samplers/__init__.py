"""Which samples to pick: at random, the most different, the highest scores, or the last two together.

`docs/sampling-methods.md` defines the methods and names their sources.
"""

from __future__ import annotations

from watcher.platform.samplers.picking import METHODS, Picks, compute_target, pick

__all__ = ["METHODS", "Picks", "compute_target", "pick"]
