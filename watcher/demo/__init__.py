"""Lets camera frames arrive in a watched folder, so that a person sees the whole thing move.

The frames are drawn, not bundled: three fixed cameras, daylight that turns to night, clouds, cars and people. Most
frames of a camera are near-duplicates of the one before, as in life.
"""

from __future__ import annotations

from watcher.demo.arrivals import DemoReport, run_demo

__all__ = ["DemoReport", "run_demo"]
