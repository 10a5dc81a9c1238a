"""Faults 37 to 50 of the original: datasets, download, transport. `docs/differences.md` tells each."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import subprocess
import sys
import threading
import traceback
import uuid
from pathlib import Path

import pytest
from PIL import Image

from tests.contract.client.conftest import build_client
from tests.contract.client.middleman import LOSE_ANSWER
from watcher.lightly import (
    ApiException,
    ApiWorkflowClient,
    ConfigError,
    DatasetDoesNotExistError,
    DatasetError,
    NotFoundException,
    ProtocolError,
    datasets,
    mappings,
    samples,
)
from watcher.lightly.compatibility import is_compatible, parse_version


def _dataset_json(name: str, *, n: int = 0, changed: int = 5) -> dict:
    return {
        "id": hashlib.md5(name.encode()).hexdigest()[:24], "name": name, "userId": "u", "type": "Images",
        "nSamples": n, "sizeInBytes": 0, "createdAt": 1, "lastModifiedAt": changed,
    }  # fmt: skip


def test_fault_37_nothing_is_changed_in_a_dataset_that_nobody_chose(client, folder_of):
    stranger = build_client(client.transport.server, client.token)
    with pytest.raises(DatasetError, match="choose a dataset first"):
        stranger.upload_dataset(str(folder_of("a.png")), verbose=False)
    with pytest.warns(UserWarning, match="no dataset was chosen"):
        assert stranger.dataset_id
    for change in (
        lambda: stranger.upload_dataset(str(folder_of("a.png")), verbose=False),
        lambda: stranger.update_processed_until_timestamp(5),
        stranger.download_new_raw_samples,
        lambda: stranger.create_tag_from_filenames(["a"], "new tag"),
        lambda: stranger.upload_custom_metadata({"images": [], "metadata": []}),
    ):
        with pytest.raises(DatasetError, match="choose a dataset first"):
            change()
    stranger.dataset_id = stranger.dataset_id
    stranger.upload_custom_metadata({"images": [], "metadata": []})


def test_fault_37_latest_is_by_change_and_none_is_a_typed_error(through, man):
    fresh = build_client(man.url, through.token)
    found = [
        _dataset_json("old", changed=1),
        _dataset_json("newest", changed=9),
        _dataset_json("mid", changed=5),
    ]
    man.when("GET", "/v1/datasets", (200, found))
    with pytest.warns(UserWarning, match="newest"):
        assert fresh.dataset_id == found[1]["id"]
    empty = build_client(man.url, through.token)
    man.when("GET", "/v1/datasets", (200, []))
    with pytest.raises(DatasetDoesNotExistError):
        _ = empty.dataset_id


def test_fault_38_the_type_of_a_dataset_takes_one_small_call(through, man):
    man.asked.clear()
    assert through.dataset_type == "Images"
    assert man.paths() == [f"/v1/datasets/{through.dataset_id}"]
    through.dataset_id = "0" * 24
    with pytest.raises(NotFoundException):
        _ = through.dataset_type


def test_fault_39_deleting_another_dataset_keeps_the_chosen_one(through):
    chosen = through.dataset_id
    through.embedding_id = "e" * 24
    other = build_client(through.transport.server, through.token)
    other.create_new_dataset_with_unique_name("to delete")
    through.delete_dataset_by_id(other.dataset_id)
    assert through.dataset_id == chosen
    assert through.embedding_id == "e" * 24
    assert through.transport is not None


def test_fault_39_deleting_without_a_choice_works_and_a_new_choice_drops_the_embedding(client):
    other = build_client(client.transport.server, client.token)
    made = build_client(client.transport.server, client.token)
    made.create_new_dataset_with_unique_name("to delete")
    other.delete_dataset_by_id(made.dataset_id)
    made.embedding_id = "e" * 24
    made.dataset_id = client.dataset_id
    assert made.embedding_id is None
    made.create_new_dataset_with_unique_name("to delete")
    made.embedding_id = "e" * 24
    gone = made.dataset_id
    made.delete_dataset_by_id(gone)
    assert made.embedding_id is None
    with pytest.warns(UserWarning, match="no dataset was chosen"):
        assert made.dataset_id != gone


def test_fault_40_a_name_taken_meanwhile_is_found(through, man):
    name = f"raced {uuid.uuid4().hex}"
    other = build_client(through.transport.server, through.token)

    def race(status: int, body: bytes) -> tuple[int, bytes]:
        other.create_dataset(name)
        return status, body

    man.when("GET", f"/query/name/{name}", race)
    through.create_dataset(name)
    assert through.dataset_id == other.dataset_id
    through.delete_dataset_by_id(other.dataset_id)


def test_fault_40_a_lost_answer_makes_one_dataset(through, man):
    name = f"lost {uuid.uuid4().hex}"
    man.when("POST", "/v1/datasets", LOSE_ANSWER)
    through.create_dataset(name)
    assert len(datasets.fetch_datasets_by_name(through.transport, name=name)) == 1
    through.delete_dataset_by_id(through.dataset_id)


def test_fault_40_a_unique_name_taken_meanwhile_goes_on_counting(through, man):
    base = f"raced {uuid.uuid4().hex}"
    other = build_client(through.transport.server, through.token)
    other.create_dataset(base)
    man.when("GET", f"/query/name/{base}", (200, []))
    through.create_new_dataset_with_unique_name(base)
    assert datasets.fetch_dataset(through.transport, dataset_id=through.dataset_id).name == f"{base}_1"
    through.delete_dataset_by_id(through.dataset_id)
    through.delete_dataset_by_id(other.dataset_id)


def test_fault_40_a_full_dataset_is_reused_with_a_word(uploaded):
    name = datasets.fetch_dataset(uploaded.transport, dataset_id=uploaded.dataset_id).name
    other = build_client(uploaded.transport.server, uploaded.token)
    with pytest.warns(UserWarning, match="6 samples"):
        other.create_dataset(name)


def test_fault_41_downloads_are_the_stored_bytes(client, tmp_path):
    original = tmp_path / "in" / "deep.png"
    original.parent.mkdir()
    Image.new("I;16", (40, 30), 40_000).save(original)
    client.upload_dataset(str(original.parent), mode="full", verbose=False)
    client.download_dataset(str(tmp_path / "out"), verbose=False)
    assert (tmp_path / "out" / "deep.png").read_bytes() == original.read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.png",
        "/evil.png",
        "a/../../evil.png",
        "link/evil.png",
        "a\x00b.png",
        ".",
        "x//y",
        "n" * 300,
    ],
)
def test_fault_42_names_from_the_server_cannot_leave_the_folder(through, uploaded, man, tmp_path, name):
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (out / "link").symlink_to(outside)
    names = uploaded.get_filenames()
    man.rules.append(
        lambda asked: (200, [name, *names[1:]]) if asked.query.get("field") == "fileName" else None
    )
    with pytest.warns(UserWarning, match="1 failed"):
        report = through.download_dataset(str(out), verbose=False)
    assert list(report.failed) == [name]
    assert len(report.downloaded) == 5
    assert list(outside.iterdir()) == []
    assert not list(tmp_path.rglob("evil.png"))
    with pytest.raises(DatasetError, match="1 failed"):
        through.download_dataset(str(out), verbose=False, strict=True)


def test_fault_43_a_download_goes_on_and_leaves_no_half_files(through, uploaded, man, tmp_path):
    out = tmp_path / "out"
    seen = [0]

    def cut(asked):
        if asked.method == "GET" and "/v1/" not in asked.path:
            seen[0] += 1
            if seen[0] > 3:
                return (404, b"gone")
        return None

    man.rules.append(cut)
    with pytest.warns(UserWarning, match="3 failed"):
        first = through.download_dataset(str(out), verbose=False, max_workers=1)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == len(first.downloaded) == 3
    man.rules.clear()
    second = through.download_dataset(str(out), verbose=False)
    assert len(second.skipped) == 3
    assert len(second.downloaded) == 3
    for name in uploaded.get_filenames():
        assert (out / name).read_bytes() == (tmp_path / "images" / name).read_bytes()


def test_fault_43_lists_that_disagree_are_cut_to_their_common_part(through, uploaded, man, tmp_path):
    ids = mappings.fetch_sample_ids(uploaded.transport, dataset_id=uploaded.dataset_id)
    man.rules.append(lambda asked: (200, [*ids, "f" * 24]) if asked.query.get("field") == "_id" else None)
    report = through.download_dataset(str(tmp_path / "out"), verbose=False)
    assert len(report.downloaded) == 6


def test_fault_44_no_error_or_log_shows_token_or_signature(through, man, folder_of, caplog):
    caplog.set_level(logging.DEBUG)
    man.rules.append(
        lambda asked: (
            (403, asked.target.encode() + through.token.encode()) if "/v1/" not in asked.path else None
        )
    )
    with pytest.warns(UserWarning) as caught:  # noqa: PT030 - all of them are looked at
        report = through.upload_dataset(str(folder_of("a.png")), verbose=False)
    man.rules[:] = [lambda asked: (418, asked.target.encode())]
    with pytest.raises(ApiException) as failed:
        through.get_all_tags()
    queries = [asked.target.partition("?")[2] for asked in man.asked]
    secrets = {part.partition("=")[2] for query in queries for part in query.split("&")} - {""}
    secrets = {secret for secret in secrets if len(secret) >= 12}
    assert through.token in secrets
    assert len(secrets) >= 2
    everything = " ".join(
        [
            # The access log of a server in this process is the server's.
            *(record.getMessage() for record in caplog.records if record.name != "uvicorn.access"),
            str(report),
            str(report.failed),
            *(str(one.message) for one in caught),
            *traceback.format_exception(failed.value),
            repr(failed.value.__dict__),
            repr(through),
            repr(through.transport),
        ]
    )
    assert [secret for secret in secrets if secret in everything] == []


def test_fault_45_every_exchange_has_time_limits_and_one_way_out(through):
    transport = through.transport
    assert 0 < transport.answer_timeout_s < 3600
    assert transport.connections is not None
    source = "".join(
        Path(module.__file__).read_text()
        for name, module in list(sys.modules.items())
        if name.startswith("watcher.lightly.")
    )
    assert "urlopen" not in source
    assert "requests.get(" not in source
    assert "requests.put(" not in source


def test_fault_46_neither_import_nor_constructor_touch_the_network():
    program = """
import socket, threading
def refuse(*_args, **_kwargs): raise AssertionError("network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
def run():
    from watcher.lightly import ApiWorkflowClient
    ApiWorkflowClient(token="t", dataset_id="0" * 24)
thread = threading.Thread(target=run); thread.start(); thread.join()
run()
print("silent")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "silent", done.stderr


@pytest.mark.parametrize(
    ("version", "minimum", "fits"),
    [
        ("1.5.26", "1.2.0", True),
        ("1.5.26", "1.5.26", True),
        ("1.5.26", "1.5.27", False),
        ("1.5.26", "1.10.0", False),
        ("1.3.0rc1", "1.3.0", False),
        ("1.3.0", "1.3.0rc1", True),
        ("1.3.0.post1", "1.3.0", True),
        ("1.3.0+local", "1.3.0", True),
        ("1.3", "1.3.0", True),
    ],
)
def test_fault_47_versions_with_suffixes_compare(version, minimum, fits):
    assert is_compatible(version, minimum) is fits


def test_fault_47_nonsense_is_a_typed_error(through, man):
    with pytest.raises(ConfigError):
        parse_version("latest")
    man.when("GET", "/v1/versions/pip/minimum", (200, "soon"))
    with pytest.raises(ProtocolError):
        through.check_version_compatibility()
    man.when("GET", "/v1/versions/pip/minimum", (200, "99.0.0"))
    with pytest.raises(ConfigError, match="99"):
        through.check_version_compatibility()
    asked = man.asked[-1]
    assert "token" not in asked.query


def test_fault_48_lists_are_paged_and_survive_changes(through, uploaded, man, monkeypatch):
    names = uploaded.get_filenames()
    monkeypatch.setattr(mappings, "_PAGE_SIZE", 4)
    assert through.get_filenames() == names
    offsets = [a.query["pageOffset"] for a in man.asked if a.path.endswith("/mappings")]
    assert offsets == ["0", "3"]


@pytest.mark.parametrize("page_size", [2, 3, 5, 6, 7])
def test_fault_48_servers_that_ignore_paging_are_understood(through, uploaded, man, monkeypatch, page_size):
    names = uploaded.get_filenames()
    monkeypatch.setattr(mappings, "_PAGE_SIZE", page_size)
    man.rules.append(lambda asked: (200, names) if asked.path.endswith("/mappings") else None)
    assert through.get_filenames() == names


def test_fault_48_a_list_that_changes_between_pages_is_read_anew(through, man, monkeypatch):
    monkeypatch.setattr(datasets, "_PAGE_SIZE", 3)
    everything = [_dataset_json(f"set {n}") for n in range(5)]
    deleted = [0]

    def answer(asked):
        if asked.path != "/v1/datasets":
            return None
        if int(asked.query["pageOffset"]) and not deleted[0]:
            deleted[0] = 1
            everything.pop(0)
        start = int(asked.query["pageOffset"])
        return (200, everything[start : start + 3])

    man.rules.append(answer)
    found = datasets.fetch_datasets(through.transport)
    assert [one.name for one in found] == ["set 1", "set 2", "set 3", "set 4"]


def test_fault_49_unknown_fields_in_answers_are_ignored(through, uploaded, man):
    def add_field(status: int, body: bytes) -> tuple[int, bytes]:
        return status, json.dumps([{**tag, "brandNew": {"x": 1}} for tag in json.loads(body)]).encode()

    man.when("GET", "/tags", add_field)
    assert [tag.name for tag in through.get_all_tags()] == ["initial-tag"]


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_fault_49_final_errors_are_not_repeated(through, man, status):
    man.when("GET", "/tags", (status, {"code": "BAD_REQUEST", "error": "no"}), times=9)
    with pytest.raises(ApiException):
        through.get_all_tags()
    assert man.count("GET", "/tags") == 1


def test_fault_50_threads_share_a_client_and_a_choice_is_never_torn(client):
    other = build_client(client.transport.server, client.token)
    pairs = {f"{n:024x}": f"{n + 100:024x}" for n in range(4)}
    seen = set()
    stop = threading.Event()

    def choose() -> None:
        while not stop.is_set():
            for dataset_id, embedding_id in pairs.items():
                other.dataset_id = dataset_id
                other._choose_embedding(dataset_id, embedding_id)

    def look() -> None:
        for _ in range(20_000):
            choice = other._choice
            seen.add((choice.dataset_id, choice.embedding_id))

    threads = [threading.Thread(target=choose), threading.Thread(target=choose)]
    for thread in threads:
        thread.start()
    look()
    stop.set()
    for thread in threads:
        thread.join()
    assert all(embedding_id in (None, pairs.get(dataset_id)) for dataset_id, embedding_id in seen)


def test_fault_50_a_client_survives_pickling(uploaded):
    copy = pickle.loads(pickle.dumps(uploaded))
    assert isinstance(copy, ApiWorkflowClient)
    assert copy.get_filenames() == uploaded.get_filenames()
    copy.dataset_id = "0" * 24
    assert uploaded.dataset_id != copy.dataset_id
    copy.transport.close()


def test_older_servers_are_understood(through, uploaded, man):
    """No partial lists, no query by name: what 1.2.x servers answer there."""
    man.when("GET", "/samples/partial", (400, {"code": "MALFORMED_REQUEST", "error": "no id"}), times=9)
    man.rules.append(lambda asked: (404, b"Cannot GET") if "/query/name/" in asked.path else None)
    found = samples.fetch_samples(through.transport, dataset_id=through.dataset_id)
    assert len(found) == 6
    name = datasets.fetch_dataset(through.transport, dataset_id=through.dataset_id).name
    through.set_dataset_id_by_name(name)
    through.set_dataset_id_by_name(name)
    assert sum("/query/name/" in path for path in man.paths()) == 1
