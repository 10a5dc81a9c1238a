"""Label Studio for the tests here; `make test-label-studio` builds its environment and runs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.label_studio.server import PROGRAM, LabelStudio


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    if not PROGRAM.exists():
        pytest.skip("no Label Studio: make test-label-studio installs it")
    server = LabelStudio(tmp_path_factory.mktemp("label-studio"))
    server.start()
    yield server
    server.close()
