from __future__ import annotations

import os
import time

import pytest

from watcher.lightly import ApiException, DatasetError

T0 = 1_600_000_000


def _put(folder, name: str, at_s: int, content: bytes = b"x") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (at_s, at_s))


def test_get_datasource_gives_json_names(client, objects):
    found = client.get_datasource()
    assert found["type"] == "LOCAL"
    assert found["fullPath"] == objects.name


def test_get_datasource_without_one_is_an_api_error(client):
    with pytest.raises(ApiException):
        client.get_datasource()


def test_processed_until_timestamp_round_trip(client, objects):
    assert client.get_processed_until_timestamp() == 0
    client.update_processed_until_timestamp(T0)
    assert client.get_processed_until_timestamp() == T0
    client.update_processed_until_timestamp(T0 - 1)
    assert client.get_processed_until_timestamp() == T0 - 1


@pytest.mark.parametrize("timestamp", [-1, 1.5, "5", True, None, 1_600_000_000_000])
def test_update_processed_until_timestamp_refuses_other_units(client, timestamp):
    with pytest.raises(DatasetError, match="whole unix seconds"):
        client.update_processed_until_timestamp(timestamp)


def test_download_raw_samples_lists_window_with_both_ends(client, objects):
    for second in range(35):
        _put(objects, f"n {second:02}+%.jpg", T0 + second, str(second).encode())
    found = client.download_raw_samples(T0 + 5, T0 + 30)
    assert sorted(name for name, _ in found) == [f"n {second:02}+%.jpg" for second in range(5, 31)]
    urls = dict(found)
    read = client.transport.read_url_bytes(urls["n 17+%.jpg"], max_bytes=10)
    assert read.body == b"17"


def test_download_raw_samples_without_to_lists_until_now(client, objects):
    _put(objects, "now.jpg", int(time.time()) - 2)
    assert [name for name, _ in client.download_raw_samples()] == ["now.jpg"]


def test_download_raw_samples_in_shards_gives_each_once(client, objects):
    for number in range(60):
        _put(objects, f"{number % 7}/{number}.jpg", T0)
    plain = client.download_raw_samples(0, T0)
    sharded = client.download_raw_samples(0, T0, divide_and_conquer_shards=4)
    assert sorted(name for name, _ in sharded) == sorted(name for name, _ in plain)
    assert len(sharded) == 60


def test_iter_raw_samples_gives_the_same(client, objects):
    for number in range(25):
        _put(objects, f"{number}.jpg", T0)
    assert [row.file_name for row in client.iter_raw_samples(0, T0)] == [
        name for name, _ in client.download_raw_samples(0, T0)
    ]


def test_download_raw_samples_empty_window_is_empty(client, objects):
    assert client.download_raw_samples(T0 + 1, T0) == []


def test_download_new_raw_samples_twice_gives_each_object_once(client, objects):
    now = int(time.time())
    _put(objects, "old.jpg", now - 100)
    assert [name for name, _ in client.download_new_raw_samples()] == ["old.jpg"]
    assert client.download_new_raw_samples() == []
    mark = client.get_processed_until_timestamp()
    assert now - 10 < mark <= now + 5
    _put(objects, "new.jpg", mark + 1)
    time.sleep(2.2)
    assert [name for name, _ in client.download_new_raw_samples()] == ["new.jpg"]


def test_new_raw_samples_window_moves_the_mark_afterwards(client, objects, target):
    for number in range(25):
        _put(objects, f"{number}.jpg", T0)
    with client.new_raw_samples_window() as window:
        pages = list(window)
        assert client.get_processed_until_timestamp() == 0
    assert len(pages) == 3 or target.page_size is None
    assert sum(len(page.rows) for page in pages) == 25
    assert client.get_processed_until_timestamp() == window.to_s
