from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.run import make_migrated_file


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_migrated_file(tmp_path_factory.mktemp("simulation"))
