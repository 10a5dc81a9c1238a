from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.crash_scene import CrashScene
from tests.acceptance.forge import Forge
from tests.faults.load import VARIABLES
from tests.faults.platform_process import PlatformProcess

MakeScene = Callable[..., CrashScene]


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    made = Forge()
    yield made
    made.close()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[PlatformProcess]:
    process = PlatformProcess(tmp_path / "server")
    process.start()
    yield process
    process.kill()


@pytest.fixture
def make_scene(tmp_path: Path, forge: Forge) -> Iterator[MakeScene]:
    made: list[CrashScene] = []

    def make(platform: PlatformProcess, *, store_url: str | None = None) -> CrashScene:
        root = tmp_path / "scene"
        root.mkdir()
        url = store_url or f"sqlite:///{root / 'store.sqlite'}"
        scene = CrashScene(root, forge, store_url=url, server=platform)
        scene.environ |= VARIABLES
        made.append(scene)
        return scene

    yield make
    for scene in made:
        scene.kill()
