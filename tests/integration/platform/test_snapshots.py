"""Snapshots of listings on disk: bounded, gone with their process, and none of a living one is taken away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN
from tests.integration.platform.test_datasources import list_all
from watcher.platform import listings

NAMES = [f"{index}.jpg" for index in range(7)]
_SERVE = """
import sys, time
from pathlib import Path
from watcher.platform import listings
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig
listings._IN_MEMORY_ROWS = 0
root, data, token = sys.argv[1:]
server = PlatformServer(
    PlatformConfig(token=token, datasource_root=Path(root), data_dir=Path(data), port=0, page_size=3)
)
server.start()
print(server.url, flush=True)
time.sleep(600)
"""


@pytest.fixture
def data(tmp_path, root, monkeypatch):
    """The data folder; every snapshot is on disk."""
    monkeypatch.setattr(listings, "_IN_MEMORY_ROWS", 0)
    for name in NAMES:
        (root / "in" / name).write_bytes(b"x")
    return tmp_path / "data"


def get_page(api, dataset, cursor=None) -> dict:
    return api("GET", f"{dataset}/datasource/list", params={"cursor": cursor} if cursor else {})


def find_files(data) -> set[str]:
    return {str(path) for path in (data / "listings").rglob("*")}


def test_snapshots_of_a_killed_server_go_at_the_next_start_and_those_of_a_living_one_stay(
    build_server, data, root
):
    with Caller(build_server(page_size=3).url, TOKEN) as living:
        dataset = living.create_dataset()
        living.set_local(dataset)
        page = get_page(living, dataset)
        kept = find_files(data)
        assert len(kept) == 2
        with subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(root), str(data), TOKEN], stdout=subprocess.PIPE, text=True
        ) as process:
            while not (line := process.stdout.readline()).startswith("http"):
                assert line
            with Caller(line.strip(), TOKEN) as killed:
                get_page(killed, dataset)
            assert len(find_files(data)) == 4
            os.kill(process.pid, signal.SIGKILL)
            process.wait(10)
        build_server()
        assert find_files(data) == kept
        # It still reads its own: one that came since is not in it.
        (root / "in" / "00.jpg").write_bytes(b"x")
        os.utime(root / "in" / "00.jpg", (2_000_000_000, 2_000_000_000))
        rest = []
        while page["hasMore"]:
            page = get_page(living, dataset, page["cursor"])
            rest += [row["fileName"] for row in page["data"]]
        assert rest == NAMES[3:]


def test_cursor_of_a_snapshot_that_was_pushed_out_goes_on_like_an_expired_one(
    build_server, data, monkeypatch
):
    monkeypatch.setattr(listings, "_MAX_BYTES", 1)
    with Caller(build_server(page_size=3).url, TOKEN) as api:
        dataset = api.create_dataset()
        api.set_local(dataset)
        page = get_page(api, dataset)
        names = [row["fileName"] for row in page["data"]]
        while page["hasMore"]:
            assert list_all(api, dataset) == NAMES
            assert len(find_files(data)) == 2  # a folder with one file
            page = get_page(api, dataset, page["cursor"])
            names += [row["fileName"] for row in page["data"]]
        assert names == NAMES
        shards = api("GET", f"{dataset}/datasource/list/dnc", params={"dncShards": 2})["cursors"]
        assert sorted(name for shard in shards for name in list_all(api, dataset, cursor=shard)) == NAMES
