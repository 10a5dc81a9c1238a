from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.forge import Forge
from tests.scale.scene import Scene


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    made = Forge()
    yield made
    made.close()


@pytest.fixture
def build_scene(tmp_path: Path, forge: Forge, postgres_url: str) -> Iterator[Callable[..., Scene]]:
    """Makes a scene over a Postgres database of its own; its processes end with the test."""
    made: list[Scene] = []

    def build(store_url: str = postgres_url, **variables: str) -> Scene:
        scene = Scene(tmp_path, forge, store_url, **variables)
        made.append(scene)
        return scene

    yield build
    for scene in made:
        scene.close()
