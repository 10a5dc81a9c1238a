"""The platform and poller of the integration tests, for scenarios."""

from __future__ import annotations

from tests.integration.daemon.conftest import database, platform, scene
from tests.integration.daemon.test_pipeline import pipeline

__all__ = ["database", "pipeline", "platform", "scene"]
