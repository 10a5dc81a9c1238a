"""Faults 10 to 23 of the original: uploads and metadata. `docs/differences.md` tells each."""

from __future__ import annotations

import copy
import io
import tempfile
import threading
from pathlib import Path

import pytest
from PIL import Image

from tests.contract.client.middleman import LOSE_ANSWER
from watcher.lightly import (
    DatasetError,
    MetadataFormatError,
    UploadIncompleteError,
    format_custom_metadata,
    samples,
)


def _find(client, name: str):
    return samples.fetch_sample_by_file_name(client.transport, dataset_id=client.dataset_id, file_name=name)


def _has_thumbnail(client, name: str) -> bool:
    url = samples.fetch_read_url(
        client.transport, dataset_id=client.dataset_id, sample_id=_find(client, name).id, kind="thumbnail"
    )
    return client.transport.read_url_bytes(url, max_bytes=10**6).size > 0


def _is_write_url(path: str) -> bool:
    return "/v1/" not in path


def test_fault_10_failures_are_reported_and_strict_raises(through, folder_of):
    folder = folder_of("a.png")

    def vanished():
        raise FileNotFoundError("gone")

    pairs = [("bad.png", vanished), ("a.png", folder / "a.png")]
    with pytest.warns(UserWarning, match=r"bad\.png"):
        report = through.upload_dataset(pairs, verbose=False)
    assert report.uploaded == ["a.png"]
    assert list(report.failed) == ["bad.png"]
    with pytest.raises(UploadIncompleteError):
        through.upload_dataset(pairs, verbose=False, strict=True)
    assert through.get_filenames() == ["a.png"]


def test_fault_11_a_broken_file_does_not_end_the_upload(through, folder_of):
    folder = folder_of("a.png", "b.png", "c.png")
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:500])
    report = through.upload_dataset(str(folder), verbose=False)
    assert sorted(report.uploaded) == ["a.png", "c.png"]
    assert list(report.corrupted) == ["b.png"]
    sample = samples.fetch_sample(
        through.transport, dataset_id=through.dataset_id, sample_id=_find(through, "b.png").id
    )
    assert sample.meta_data.size_in_bytes == 500


def test_fault_12_a_sample_registered_without_its_image_gets_it_in_the_next_run(through, folder_of, man):
    folder = folder_of("a.png", "b.png", "c.png")
    accepted: list[str] = []

    def accept_one(asked):
        if asked.method != "PUT" or not _is_write_url(asked.path):
            return None
        accepted.append(asked.path)
        return None if asked.path == accepted[0] else (403, b"no")

    man.rules.append(accept_one)
    with pytest.warns(UserWarning, match="1 uploaded, 0 skipped, 0 corrupted, 2 failed"):
        report = through.upload_dataset(str(folder), verbose=False)
    assert report.tag is None
    assert through.get_all_tags() == []
    assert len(through.get_filenames()) == 3
    man.rules.clear()
    report = through.upload_dataset(str(folder), verbose=False)
    assert {"a.png", "b.png", "c.png"} == {*report.uploaded}
    assert report.tag.tot_size == 3
    assert all(_has_thumbnail(through, name) for name in ("a.png", "b.png", "c.png"))
    assert len(through.get_filenames()) == 3


def test_fault_13_a_repeated_put_sends_the_whole_body(through, folder_of, man):
    folder = folder_of("a.png")
    fails = [3]

    def fail_puts(asked):
        if asked.method == "PUT" and _is_write_url(asked.path) and fails[0]:
            fails[0] -= 1
            return (500, b"try again")
        return None

    man.rules.append(fail_puts)
    report = through.upload_dataset(str(folder), mode="full", verbose=False, strict=True)
    assert report.uploaded == ["a.png"]
    bodies = [asked.body for asked in man.asked if asked.method == "PUT" and _is_write_url(asked.path)]
    assert len(bodies) == 5
    assert len(set(bodies)) == 2
    assert bodies[-1] == (folder / "a.png").read_bytes()


def test_fault_14_a_lost_reply_makes_no_second_sample(through, folder_of, man):
    man.when("POST", "withWriteUrls", LOSE_ANSWER, times=1)
    report = through.upload_dataset(str(folder_of("a.png")), verbose=False, strict=True)
    assert report.uploaded == ["a.png"]
    assert through.get_filenames() == ["a.png"]
    assert man.count("POST", "withWriteUrls") == 1
    assert _has_thumbnail(through, "a.png")


def test_fault_14_on_a_server_without_with_write_urls(through, folder_of, man):
    man.when("POST", "withWriteUrls", (404, b"Cannot POST"), times=99)
    man.when("POST", "/samples", LOSE_ANSWER, times=1)
    report = through.upload_dataset(
        str(folder_of("a.png", "b.png", "c.png")), verbose=False, max_workers=1, strict=True
    )
    assert len(report.uploaded) == 3
    assert man.count("POST", "withWriteUrls") == 1
    assert man.count("POST", "/samples") == 3
    assert len(through.get_filenames()) == 3


def test_fault_15_final_errors_are_not_repeated_and_say_why(through, folder_of, man):
    man.when("POST", "withWriteUrls", (422, {"code": "DATASET_AT_MAX_CAPACITY", "error": "full"}), times=99)
    with pytest.warns(UserWarning, match="DATASET_AT_MAX_CAPACITY"):
        report = through.upload_dataset(str(folder_of("a.png")), verbose=False)
    assert "full" in report.failed["a.png"]
    assert man.count("POST", "withWriteUrls") == 1


def test_fault_16_thumbnails_of_equal_stems_do_not_collide(through, folder_of):
    through.upload_dataset(str(folder_of("a.png", "a.jpg")), verbose=False)
    names = {
        samples.fetch_sample(
            through.transport, dataset_id=through.dataset_id, sample_id=_find(through, name).id
        ).thumb_name
        for name in ("a.png", "a.jpg")
    }
    assert len(names) == 2


def test_fault_17_the_length_limit_is_that_of_the_stored_name(through, folder_of):
    deep = Path(*["deep" * 10] * 8)
    folder = folder_of(str(deep / "a.png"))
    report = through.upload_dataset(str(folder / deep), verbose=False)
    assert report.uploaded == ["a.png"]
    with pytest.warns(UserWarning, match="333 characters, 255 are allowed"):
        report = through.upload_dataset(str(folder), verbose=False)
    assert len(report.failed) == 1


ODD_NAMES = (
    "Screenshot 2024-01-01 at 10.00.00\u202fAM.png",
    "no\u00a0break.png",
    "\u5199\u771f\u3000\uff11.png",
    "\U0001f469\u200d\U0001f52c.png",
    "\u200eIMG-WA0001.png",
)


def test_names_as_systems_give_them_are_taken_and_come_back(through, folder_of, tmp_path):
    """Narrow blanks of screenshots, joined emoji and marks of direction once counted as control characters."""
    folder = folder_of(*ODD_NAMES)
    assert sorted(through.upload_dataset(str(folder), mode="full", verbose=False).uploaded) == sorted(
        ODD_NAMES
    )
    report = through.download_dataset(str(tmp_path / "copies"), verbose=False)
    assert sorted(report.downloaded) == sorted(ODD_NAMES)
    for name in ODD_NAMES:
        assert (tmp_path / "copies" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("name", ["line\nbreak.png", "bell\x07.png", "csi\x9b.png", "not \udcff utf-8.png"])
def test_name_with_control_characters_is_refused_and_says_why(through, folder_of, name):
    picture = folder_of("a.png") / "a.png"
    with pytest.warns(UserWarning, match="control characters or is not UTF-8"):
        report = through.upload_dataset([(name, picture), ("b.png", picture)], verbose=False)
    assert (list(report.failed), report.uploaded) == ([name], ["b.png"])


def test_fault_18_known_files_are_not_read_again(through, folder_of, man):
    folder = folder_of("a.png", "b.png")
    through.upload_dataset(str(folder), verbose=False)
    man.asked.clear()

    def explode():
        raise AssertionError("read again")

    report = through.upload_dataset([("a.png", explode), ("b.png", explode)], verbose=False, strict=True)
    assert report.skipped == ["a.png", "b.png"]
    assert man.count("GET", "/samples") == 0


def test_fault_18_two_requests_an_image(through, folder_of, man):
    folder = folder_of(*[f"{n}.png" for n in range(10)])
    through.upload_dataset(str(folder), verbose=False)
    per_file = [a for a in man.asked if a.path.endswith("withWriteUrls") or _is_write_url(a.path)]
    assert len(per_file) == 20


def test_fault_18_images_beside_subfolders_are_taken_and_nothing_is_left_behind(
    through, folder_of, monkeypatch, tmp_path
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    folder = folder_of("top.png", "sub/inner.png", "x_lightly_outputs/own.png")
    report = through.upload_dataset(str(folder), verbose=False)
    assert sorted(report.uploaded) == ["sub/inner.png", "top.png"]
    assert list(scratch.iterdir()) == []


def test_fault_18_an_upload_of_nothing_new_makes_no_tag(through, folder_of, man):
    folder = folder_of("a.png")
    for _ in range(3):
        through.upload_dataset(str(folder), verbose=False)
    assert len(through.get_all_tags()) == 1
    assert man.count("POST", "tags/upsize") == 0


def test_fault_18_two_uploads_within_a_second_get_different_tags(through, folder_of, monkeypatch):
    folder = folder_of("a.png")
    through.upload_dataset(str(folder), verbose=False)
    monkeypatch.setattr("watcher.lightly.client._build_time_suffix", lambda: "_20220301_10h00m00s")
    made = []
    for number in range(2):
        folder_of(f"new{number}.png")
        made.append(through.upload_dataset(str(folder), verbose=False, strict=True).tag)
    assert made[0].id != made[1].id
    assert [through.get_filenames_in_tag(tag) for tag in made] == [["new0.png"], ["new1.png"]]


def test_fault_18_quota_is_checked_before_anything_is_sent(through, folder_of, man):
    man.when("GET", "/v1/quota", (200, "1"), times=9)
    with pytest.raises(DatasetError, match="1 are allowed"):
        through.upload_dataset(str(folder_of("a.png", "b.png")), verbose=False)
    assert man.count("POST", "withWriteUrls") == 0


METADATA = {
    "images": [{"file_name": "c.png", "id": 3}, {"file_name": "a.png", "id": 1}],
    "metadata": [{"image_id": 3, "v": "c"}, {"image_id": 1, "v": "a"}],
}


def test_fault_19_a_missing_name_never_gets_the_entry_of_another(client):
    with pytest.raises(DatasetError, match=r"b\.png"):
        client.index_custom_metadata_by_filename(["b.png"], METADATA)
    found = client.index_custom_metadata_by_filename(["a.png", "c.png"], METADATA)
    assert {name: entry["v"] for name, entry in found.items()} == {"a.png": "a", "c.png": "c"}


def test_fault_20_the_callers_dict_stays_as_it_was(client):
    given = copy.deepcopy(METADATA)
    client.index_custom_metadata_by_filename(["a.png"], given)["a.png"]["v"] = "changed"
    assert given == METADATA


def test_fault_21_partial_metadata_is_stored(through, folder_of):
    through.upload_dataset(str(folder_of("a.png", "b.png", "c.png")), verbose=False)
    assert sorted(through.upload_custom_metadata(METADATA).updated) == ["a.png", "c.png"]
    sample = samples.fetch_sample(
        through.transport, dataset_id=through.dataset_id, sample_id=_find(through, "c.png").id
    )
    assert sample.custom_meta_data == {"image_id": 3, "v": "c"}


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ([], "must be a dict"),
        ({}, "images"),
        ({"images": []}, "metadata"),
        ({"images": {}, "metadata": []}, "must be a list"),
        ({"images": [{"id": 1}], "metadata": []}, "'file_name'"),
        ({"images": [{"file_name": "a"}], "metadata": []}, "'id'"),
        ({"images": [], "metadata": [{"x": 1}]}, "'image_id'"),
        ({"images": [], "metadata": [5]}, "'image_id'"),
        ({"images": [{"file_name": "a", "id": 1}, {"file_name": "a", "id": 2}], "metadata": []}, "twice"),
        ({"images": [], "metadata": [{"image_id": 1}, {"image_id": 1}]}, "twice"),
        ({"images": [{"file_name": "a", "id": [1]}], "metadata": []}, "number or text"),
        ({"images": [{"file_name": 5, "id": 1}], "metadata": []}, "must be text"),
    ],
)
def test_fault_22_wrong_metadata_is_told_beforehand(client, metadata, words):
    with pytest.raises(KeyError, match=words) as caught:
        client.verify_custom_metadata_format(metadata)
    assert isinstance(caught.value, MetadataFormatError)


def test_fault_23_one_odd_exif_tag_does_not_drop_the_others(through, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0xC7A1] = "unknown tag"
    exif.get_ifd(0x8825)[2] = (52.0, 30.0, 0.0)
    file = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(file, "JPEG", exif=exif)
    (tmp_path / "x.jpg").write_bytes(file.getvalue())
    through.upload_dataset([("x.jpg", tmp_path / "x.jpg")], verbose=False)
    sample = samples.fetch_sample(
        through.transport, dataset_id=through.dataset_id, sample_id=_find(through, "x.jpg").id
    )
    assert sample.exif["Make"] == "Maker"
    assert sample.exif["GPSInfo"]
    assert "nan" not in str(sample.exif).lower()


def test_uploads_from_two_threads_of_one_client_do_not_mix(through, folder_of):
    first = folder_of(*[f"a{n}.png" for n in range(5)], folder="one")
    second = folder_of(*[f"b{n}.png" for n in range(5)], folder="two")
    reports = []
    threads = [
        threading.Thread(target=lambda f=f: reports.append(through.upload_dataset(str(f), verbose=False)))
        for f in (first, second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(len(report.uploaded) for report in reports) == 10
    assert len(through.get_filenames()) == 10


def test_an_expired_write_url_is_renewed(through, folder_of, man):
    left = [1]

    def expire(asked):
        if asked.method == "PUT" and _is_write_url(asked.path) and left[0]:
            left[0] = 0
            return (403, b"Request has expired")
        return None

    man.rules.append(expire)
    assert through.upload_dataset(str(folder_of("a.png")), verbose=False, strict=True).uploaded == ["a.png"]
    assert man.count("GET", "/writeurls") == 1


def test_linked_folders_that_lead_back_are_walked_once(through, folder_of):
    folder = folder_of("a.png")
    (folder / "back").symlink_to(folder)
    assert through.upload_dataset(str(folder), verbose=False).uploaded == ["a.png"]


def test_custom_metadata_of_an_upload_must_cover_each_file(through, folder_of):
    with pytest.raises(DatasetError, match=r"b\.png"):
        through.upload_dataset(
            str(folder_of("a.png", "b.png")),
            custom_metadata=format_custom_metadata([("a.png", {})]),
            verbose=False,
        )
