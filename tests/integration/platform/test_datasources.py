"""Datasources in folders: configuration, listing, marks."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
import requests

from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN

ODD_NAMES = [
    "a b.jpg",
    "a+b%20.jpg",
    "100%.jpg",
    "ünï/日本.png",
    ".leading.jpg",
    "q?x=1&y#z.jpg",
    "new\nline.png",
    "'\".png",
]


def put(folder: Path, name: str, second: float, content: bytes | None = None) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if content is not None else name.encode())
    os.utime(path, (second, second))


def list_all(api, dataset, **query) -> list[str]:
    names, cursor = [], None
    for _ in range(1000):
        params = {"cursor": cursor} if cursor else query
        page = api("GET", f"{dataset}/datasource/list", params=params)
        names += [row["fileName"] for row in page["data"]]
        cursor = page["cursor"]
        if not page["hasMore"]:
            return names
    raise AssertionError("the listing does not end")


@pytest.fixture
def folder(root) -> Path:
    return root / "in"


@pytest.fixture
def dataset(light_api) -> str:
    path = light_api.create_dataset()
    light_api.set_local(path)
    return path


def test_datasource_is_given_back_with_id_and_purpose(api):
    dataset = api.create_dataset()
    api.refused("GET", f"{dataset}/datasource", 404, "DATASET_DATASOURCE_UNKNOWN")
    # 1.2.x never sends a purpose.
    api(
        "PUT",
        f"{dataset}/datasource",
        json={"type": "LOCAL", "fullPath": "in", "thumbSuffix": "t/[filename]"},
    )
    found = api("GET", f"{dataset}/datasource")
    assert (found["type"], found["fullPath"], found["purpose"]) == ("LOCAL", "in", "INPUT_OUTPUT")
    api("PUT", f"{dataset}/datasource", json={"type": "LIGHTLY", "fullPath": "", "purpose": "LIGHTLY"})
    assert [d["type"] for d in api("GET", f"{dataset}/datasource/all")] == ["LOCAL", "LIGHTLY"]
    api("PUT", f"{dataset}/datasource", json={"type": "LOCAL", "fullPath": "", "purpose": "INPUT_OUTPUT"})
    again = api("GET", f"{dataset}/datasource")
    assert (again["id"], again["fullPath"]) == (found["id"], "")
    assert len(api("GET", dataset)["datasources"]) == 2


@pytest.mark.parametrize(
    "path", ["/etc", "..", "../root", "in/../..", "in//x", "./in", "s3://b", "a\\b", "in/\0"]
)
def test_path_that_leads_out_is_refused(light_api, path):
    dataset = light_api.create_dataset()
    body = {"type": "LOCAL", "fullPath": path, "purpose": "INPUT"}
    light_api.refused("PUT", f"{dataset}/datasource", 422, "DATASET_DATASOURCE_INVALID", json=body)


def test_missing_folder_is_an_error_that_names_it_and_never_an_empty_listing(api):
    dataset = api.create_dataset()
    api.set_local(dataset, "nowhere")
    text = api.refused("GET", f"{dataset}/datasource/list", 422, "DATASET_DATASOURCE_INVALID")
    assert "nowhere" in text


def test_unreadable_subfolder_is_an_error(light_api, dataset, folder, monkeypatch):
    put(folder, "a.jpg", 5)
    (folder / "locked").mkdir()
    real = os.open

    def open_file(path, *arguments, **more):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", open_file)
    text = light_api.refused("GET", f"{dataset}/datasource/list", 422, "DATASET_DATASOURCE_INVALID")
    assert "locked" in text


def test_listing_is_ordered_by_time_and_both_ends_count(light_api, dataset, folder):
    for second in range(10, 0, -1):
        put(folder, f"{second:02}.jpg", second + 0.7)
    assert list_all(light_api, dataset, **{"from": 3, "to": 9}) == [f"{s:02}.jpg" for s in range(3, 10)]
    assert list_all(light_api, dataset, **{"from": 11}) == []
    assert list_all(light_api, dataset, **{"from": 9, "to": 3}) == []
    assert len(list_all(light_api, dataset)) == 10


@pytest.mark.scenario(number=25)
def test_every_name_round_trips_and_its_url_gives_its_bytes(api, folder):
    for name in ODD_NAMES:
        put(folder, name, 5)
    dataset = api.create_dataset()
    api.set_local(dataset)
    rows = api("GET", f"{dataset}/datasource/list")["data"]
    assert sorted(row["fileName"] for row in rows) == sorted(ODD_NAMES)
    for row in rows:
        answer = requests.get(row["readUrl"], timeout=5)
        assert answer.content == row["fileName"].encode()
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"] == "attachment"
        assert "Last-Modified" in answer.headers


def test_hidden_and_temporary_names_are_left_out_and_others_are_not(light_api, dataset, folder):
    for name in (".lightly/x.json", "deep/.lightly/y.jpg", "a.jpg.part", "b.tmp"):
        put(folder, name, 5)
    for name in (".lightly.jpg", "x.lightly/a.jpg", "text.txt", ".dot/b.jpg"):
        put(folder, name, 5)
    assert sorted(list_all(light_api, dataset)) == sorted(
        [".lightly.jpg", "x.lightly/a.jpg", "text.txt", ".dot/b.jpg"]
    )


def test_name_that_is_not_utf8_is_skipped_and_the_rest_listed(light_api, dataset, folder):
    put(folder, "a.jpg", 5)
    os.close(os.open(os.fsencode(folder) + b"/\xff\xfe.jpg", os.O_CREAT | os.O_WRONLY))
    assert list_all(light_api, dataset) == ["a.jpg"]


def test_links_are_followed_only_inside_the_root(light_api, dataset, folder, root, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    put(root, "shared.jpg", 5, b"shared")
    (folder / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "in.jpg").symlink_to(root / "shared.jpg")
    (folder / "loop").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(folder / "nothing.jpg")
    os.mkfifo(folder / "pipe.jpg")
    assert list_all(light_api, dataset) == ["in.jpg"]
    (row,) = light_api("GET", f"{dataset}/datasource/list")["data"]
    assert requests.get(row["readUrl"], timeout=5).content == b"shared"
    (folder / "in.jpg").unlink()
    (folder / "in.jpg").symlink_to(tmp_path / "secret.jpg")
    assert requests.get(row["readUrl"], timeout=5).status_code == 404


def test_folder_that_is_a_link_out_of_the_root_is_refused(light_api, root, tmp_path):
    (tmp_path / "outside").mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    dataset = light_api.create_dataset()
    light_api.set_local(dataset, "link")
    light_api.refused("GET", f"{dataset}/datasource/list", 422, "DATASET_DATASOURCE_INVALID")


@pytest.mark.parametrize("n_files", [0, 1, 3, 4, 10])
def test_every_object_comes_once_whatever_the_page_size(light_api, dataset, folder, n_files):
    expected = [f"{index:03}.jpg" for index in range(n_files)]
    for name in expected:
        put(folder, name, 7)
    assert list_all(light_api, dataset) == expected


def test_listing_goes_on_after_a_restart_from_the_cursor_alone(build_server, folder):
    for index in range(10):
        put(folder, f"{index}.jpg", index + 1)
    first = build_server(page_size=4)
    with Caller(first.url, TOKEN) as api:
        dataset = api.create_dataset()
        api.set_local(dataset)
        page = api("GET", f"{dataset}/datasource/list", params={"from": 0, "to": 9})
    first.stop()
    put(folder, "late.jpg", 100)  # outside the window
    (folder / "0.jpg").unlink()
    with Caller(build_server(page_size=4).url, TOKEN) as api:
        rest = list_all(api, dataset, cursor=page["cursor"])
    assert [row["fileName"] for row in page["data"]] + rest == [f"{index}.jpg" for index in range(9)]


def test_objects_that_arrive_meanwhile_never_shift_the_pages(light_api, dataset, folder):
    for index in range(50):
        put(folder, f"{index:02}.jpg", 100 + index)
    stop = threading.Event()

    def arrive():
        count = 0
        while not stop.is_set():
            put(folder, f"new/{count}.jpg", 100 + count % 50)
            count += 1

    thread = threading.Thread(target=arrive)
    thread.start()
    try:
        names = list_all(light_api, dataset)
    finally:
        stop.set()
        thread.join()
    assert [name for name in names if not name.startswith("new/")] == [
        f"{index:02}.jpg" for index in range(50)
    ]
    assert len(names) == len(set(names))


def test_large_listing_is_kept_on_disk_and_is_the_same(build_server, folder, monkeypatch):
    monkeypatch.setattr("watcher.platform.listings._IN_MEMORY_ROWS", 5)
    for index in range(40):
        put(folder, f"{index:02}.jpg", 100 - index % 7)
    expected = [name for _, name in sorted((100 - i % 7, f"{i:02}.jpg") for i in range(40))]
    with Caller(build_server(page_size=6).url, TOKEN) as api:
        dataset = api.create_dataset()
        api.set_local(dataset)
        assert list_all(api, dataset) == expected
        for shards in (2, 3, 40, 100):
            cursors = api("GET", f"{dataset}/datasource/list/dnc", params={"dncShards": shards})["cursors"]
            assert [name for c in cursors for name in list_all(api, dataset, cursor=c)] == expected


def test_shards_give_every_object_once(light_api, dataset, folder):
    expected = [f"{index:02}.jpg" for index in range(11)]
    for name in expected:
        put(folder, name, 7)
    for shards in (1, 2, 5, 50):
        query = {"from": 0, "to": 100, "dncShards": shards}
        cursors = light_api("GET", f"{dataset}/datasource/list/dnc", params=query)["cursors"]
        assert 1 <= len(cursors) <= shards
        assert [name for c in cursors for name in list_all(light_api, dataset, cursor=c)] == expected
    query = {"from": 50, "to": 100, "dncShards": 3}
    assert len(light_api("GET", f"{dataset}/datasource/list/dnc", params=query)["cursors"]) == 1


def test_cursor_of_another_dataset_or_changed_is_refused(light_api, dataset, folder):
    for index in range(4):
        put(folder, f"{index}.jpg", 7)
    cursor = light_api("GET", f"{dataset}/datasource/list")["cursor"]
    other = light_api.create_dataset("other")
    light_api.set_local(other)
    light_api.refused("GET", f"{other}/datasource/list", 422, "MALFORMED_REQUEST", params={"cursor": cursor})
    first, last = ("A" if cursor[end] != "A" else "B" for end in (0, -1))
    for forged in (cursor[:-1] + last, first + cursor[1:], "x", "ü", cursor * 2):
        light_api.refused(
            "GET", f"{dataset}/datasource/list", 422, "MALFORMED_REQUEST", params={"cursor": forged}
        )
    light_api.set_local(dataset, "")
    text = light_api.refused(
        "GET", f"{dataset}/datasource/list", 422, "MALFORMED_REQUEST", params={"cursor": cursor}
    )
    assert "changed" in text


@pytest.mark.parametrize(("mark", "end"), [(b"", b"\n"), (b"\xef\xbb\xbf", b"\r\n")])
def test_relevant_names_are_lines_however_odd_the_names(light_api, dataset, folder, mark, end):
    """Only a line feed ends a name: what else Python takes for the end of a line may stand in one."""
    names = ["a\u2028b.jpg", "c\x0cd.jpg", "e\x85f.jpg", " g .jpg"]
    for name in (*names, "h.jpg"):
        put(folder, name, 7)
    put(folder, "relevant.txt", 7, mark + end.join(name.encode() for name in names) + end)
    query = {"relevantFilenamesFileName": "relevant.txt"}
    assert sorted(list_all(light_api, dataset, **query)) == sorted(names)


def test_relevant_names_restrict_the_listing(light_api, dataset, folder):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        put(folder, name, 7)
    put(folder, ".lightly/relevant.txt", 7, b"c.jpg\na.jpg\nnot there\n")
    query = {"relevantFilenamesFileName": ".lightly/relevant.txt"}
    assert list_all(light_api, dataset, **query) == ["a.jpg", "c.jpg"]
    light_api.refused(
        "GET",
        f"{dataset}/datasource/list",
        422,
        "DATASET_DATASOURCE_RELEVANT_FILENAMES_INVALID",
        params={"relevantFilenamesFileName": "missing.txt"},
    )


def test_prefix_and_suffix_restrict_the_listing_on_every_page_and_in_every_shard(light_api, dataset, folder):
    wanted = ["gate/1.jpg", "gate/2.JPG", "gate/3.jpg", "gate/late/4.jpg"]
    for name in (*wanted, "gate/5.png", "Gate/6.jpg", "yard/7.jpg", "gate.jpg"):
        put(folder, name, 7)
    query = {"prefix": "gate/", "suffix": ".jpg"}
    assert list_all(light_api, dataset, **query) == wanted
    split = light_api("GET", f"{dataset}/datasource/list/dnc", params={**query, "dncShards": 2})["cursors"]
    assert [name for cursor in split for name in list_all(light_api, dataset, cursor=cursor)] == wanted
    assert list_all(light_api, dataset, prefix="Gate/") == ["Gate/6.jpg"]
    assert list_all(light_api, dataset, suffix="5.png") == ["gate/5.png"]
    assert list_all(light_api, dataset, prefix="%") == []


def test_redirected_url_leads_to_the_object_and_cannot_be_bent(light_api, dataset, folder):
    put(folder, "a b.jpg", 7)
    put(folder, "other.jpg", 7)
    rows = light_api("GET", f"{dataset}/datasource/list", params={"useRedirectedReadUrl": "True"})["data"]
    url = next(row["readUrl"] for row in rows if row["fileName"] == "a b.jpg")
    assert requests.get(url, timeout=5).content == b"a b.jpg"
    assert requests.get(url.replace("a%20b.jpg", "other.jpg"), timeout=5).status_code == 403


def test_mark_is_zero_first_and_may_go_back(api):
    dataset = api.create_dataset()
    path = f"{dataset}/datasource/processedUntilTimestamp"
    assert api("GET", path) == {"processedUntilTimestamp": 0}
    for mark in (int(time.time()), 5):
        api("PUT", path, json={"processedUntilTimestamp": mark})
        assert api("GET", path) == {"processedUntilTimestamp": mark}
    for bad in (-1, 1.5, "5", 2**70):
        api.refused("PUT", path, 422, "MALFORMED_REQUEST", json={"processedUntilTimestamp": bad})


def test_verify_tells_every_right(light_api, dataset, folder):
    reply = light_api.request("GET", f"{dataset}/datasource/verify").json()
    assert reply == {"canRead": True, "canWrite": True, "canList": True, "canOverwrite": True}
    assert list_all(light_api, dataset) == []


def test_unsupported_field_values_of_a_datasource_are_refused(light_api, dataset):
    light_api.refused(
        "PUT", f"{dataset}/datasource", 422, "MALFORMED_REQUEST", json={"type": "FTP", "fullPath": "x"}
    )
