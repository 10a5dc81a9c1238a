"""What a poll refuses: clocks that cannot be believed, and servers or datasets whose ledger is another one."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.daemon.conftest import TOKEN, Scene
from watcher.attach import attach_watch
from watcher.domain.clock import SystemClock
from watcher.domain.errors import ClockError, StoreError
from watcher.lightly import datasets, datasources
from watcher.lightly.wire.datasets import DatasetCreateRequest
from watcher.lightly.wire.datasources import DatasourceLocal
from watcher.ops.overview import load_overview
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig
from watcher.store import watches

YEAR_S = 366 * 86_400


@dataclass
class WrongClock(SystemClock):
    """This machine's clock, off by so much."""

    off_s: float = 0.0

    def now_s(self) -> float:
        return time.time() + self.off_s


@pytest.mark.parametrize("off_s", [YEAR_S, -YEAR_S])
def test_poll_with_a_clock_a_year_off_is_named_waits_and_goes_on_afterwards(
    scene: Scene, off_s: float
) -> None:
    scene.put("a.jpg", modified_s=time.time() - 30)
    with pytest.raises(ClockError, match=r"wrong by 366\.0 days"):
        scene.build_poller(clock=WrongClock(off_s)).run_cycle()
    assert scene.load_watch().mark_s is None
    (view,) = load_overview(scene.database, now_ms=0).watches
    assert view.problem is not None
    assert "the poll waits" in view.problem
    assert scene.build_poller().run_cycle().n_new == 1
    assert scene.load_watch().problem is None


def test_poll_when_the_clock_went_back_a_year_leaves_the_mark(scene: Scene) -> None:
    poller = scene.build_poller()
    poller.run_cycle()
    ahead_s = int(time.time()) + YEAR_S
    with scene.database.write() as session:
        watches.update_mark(session, watch_id=poller.watch_id, mark_s=ahead_s, now_ms=1)
    with pytest.raises(ClockError, match="set the mark back with `watcher rewind`"):
        poller.run_cycle()
    assert scene.load_watch().mark_s == ahead_s


def test_ledger_of_a_dataset_that_was_deleted_and_made_again_is_refused(scene: Scene) -> None:
    scene.put("a.jpg", modified_s=time.time() - 30)
    poller = scene.build_poller()
    poller.run_cycle()
    before = scene.load_watch()
    transport = scene.build_transport()
    datasets.delete_dataset(transport, dataset_id=before.dataset_id)
    with pytest.raises(StoreError, match=f"{before.dataset_id}.*no dataset 'cams' any more"):
        scene.build_poller()
    assert datasets.fetch_datasets_by_name(transport, name="cams", exact=True) == [], "it was made anew"
    made = datasets.create_dataset(transport, request=DatasetCreateRequest(name="cams"))
    with pytest.raises(StoreError, match=f"{before.dataset_id}.*{made}.*another store"):
        scene.build_poller()
    assert scene.load_watch() == before


def test_ledger_of_a_dataset_of_a_remote_server_made_again_is_refused_too(scene: Scene) -> None:
    transport = scene.build_transport()
    datasource = DatasourceLocal(full_path="incoming", purpose="INPUT_OUTPUT")
    ids = []
    for _ in range(2):
        ids.append(datasets.create_dataset(transport, request=DatasetCreateRequest(name="remote")))
        datasources.update_datasource(transport, dataset_id=ids[-1], datasource=datasource)
        if len(ids) == 1:
            scene.change(name="remote", dataset="remote", folder=None)
            scene.build_poller().run_cycle()
            datasets.delete_dataset(transport, dataset_id=ids[0])
    with pytest.raises(StoreError, match=f"{ids[0]}.*{ids[1]}"):
        scene.build_poller()


def test_ledger_of_an_embedded_platform_whose_data_were_replaced_is_refused(
    scene: Scene, platform: PlatformServer, tmp_path: Path
) -> None:
    scene.build_poller().run_cycle()
    platform.stop()
    shutil.rmtree(tmp_path / "platform")
    fresh = PlatformServer(
        PlatformConfig(token=TOKEN, datasource_root=tmp_path, data_dir=tmp_path / "platform", port=0)
    )
    fresh.start()
    try:
        scene.server = fresh.url
        with pytest.raises(StoreError, match="the server's data were replaced"):
            scene.build_poller()
        assert datasets.fetch_datasets_by_name(scene.build_transport(), name="cams", exact=True) == []
    finally:
        fresh.stop()


def test_ledger_of_another_server_is_refused(scene: Scene) -> None:
    scene.build_poller()
    with pytest.raises(StoreError, match=r"at test for the watch 'cams'.*at elsewhere"):
        attach_watch(
            scene.database,
            scene.build_transport(),
            config=scene.config,
            server_identity="elsewhere",
            now_ms=0,
        )
