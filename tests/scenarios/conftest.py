"""The platform and poller of the integration tests, for scenarios."""

from __future__ import annotations

from tests.integration.daemon.conftest import database, platform, scene
from tests.integration.daemon.test_pipeline import pipeline
from tests.stores import migrated_file, migrated_url, store_url

__all__ = ["database", "migrated_file", "migrated_url", "pipeline", "platform", "scene", "store_url"]
