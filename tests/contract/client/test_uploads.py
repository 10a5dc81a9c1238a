from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from watcher.lightly import (
    ApiException,
    CancelledError,
    DatasetError,
    TagDoesNotExistError,
    UploadIncompleteError,
    format_custom_metadata,
    samples,
)


def _fetch(client, name: str):
    found = samples.fetch_sample_by_file_name(client.transport, dataset_id=client.dataset_id, file_name=name)
    return samples.fetch_sample(client.transport, dataset_id=client.dataset_id, sample_id=found.id)


def _read(client, name: str, kind: str) -> bytes:
    url = samples.fetch_read_url(
        client.transport, dataset_id=client.dataset_id, sample_id=_fetch(client, name).id, kind=kind
    )
    return client.transport.read_url_bytes(url, max_bytes=10**7).body


def test_upload_dataset_thumbnails_registers_values_and_thumbnails(client, folder_of):
    folder = folder_of("a.png", "sub/b.png", size=(300, 200))
    report = client.upload_dataset(str(folder), verbose=False)
    assert sorted(report.uploaded) == ["a.png", "sub/b.png"]
    assert (report.skipped, report.failed, report.corrupted) == ([], {}, {})
    assert report.tag.name == "initial-tag"
    sample = _fetch(client, "sub/b.png")
    assert sample.meta_data.shape == [200, 300, 3]
    assert sample.meta_data.size_in_bytes == (folder / "sub/b.png").stat().st_size
    with Image.open(io.BytesIO(_read(client, "sub/b.png", "thumbnail"))) as thumbnail:
        assert thumbnail.format == "WEBP"
        assert max(thumbnail.size) == 128


def test_upload_dataset_full_keeps_the_bytes(uploaded, folder_of, tmp_path):
    for name in uploaded.get_filenames():
        assert _read(uploaded, name, "full") == (tmp_path / "images" / name).read_bytes()


def test_upload_dataset_metadata_mode_writes_no_files(client, folder_of):
    client.upload_dataset(str(folder_of("a.png")), mode="metadata", verbose=False)
    assert _fetch(client, "a.png").meta_data.mean is not None
    with pytest.raises(ApiException):
        _read(client, "a.png", "thumbnail")


def test_upload_dataset_again_skips_and_new_files_get_a_tag(client, folder_of):
    folder = folder_of("a.png")
    client.upload_dataset(str(folder), verbose=False)
    folder_of("b.png", "c.png")
    report = client.upload_dataset(str(folder), verbose=False)
    assert report.skipped == ["a.png"]
    assert sorted(report.uploaded) == ["b.png", "c.png"]
    assert client.get_filenames_in_tag(report.tag) == client.get_filenames()[1:]
    again = client.upload_dataset(str(folder), verbose=False)
    assert len(client.get_all_tags()) == 2
    assert again.uploaded == []


def test_upload_dataset_takes_pairs_and_functions(client, folder_of):
    folder = folder_of("a.png")
    content = (folder / "a.png").read_bytes()
    pairs = [
        ("x/one.png", folder / "a.png"),
        ("two.png", lambda: io.BytesIO(content)),
        ("3.png", str(folder / "a.png")),
    ]
    report = client.upload_dataset(iter(pairs), verbose=False, max_workers=2)
    assert sorted(report.uploaded) == ["3.png", "two.png", "x/one.png"]


class _Dataset:
    def __init__(self, folder: Path | None, names: list[str]) -> None:
        self.input_dir = str(folder) if folder else None
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def get_filenames(self) -> list[str]:
        return self._names

    def __getitem__(self, index: int):
        pixels = np.full((20, 30, 3), 10 * index, dtype=np.uint8)
        return Image.fromarray(pixels), 0, self._names[index]


def test_upload_dataset_takes_a_dataset_object(client, folder_of):
    report = client.upload_dataset(_Dataset(folder_of("a.png"), ["a.png", "pixels-only.png"]), verbose=False)
    assert sorted(report.uploaded) == ["a.png", "pixels-only.png"]
    assert _fetch(client, "pixels-only.png").meta_data.shape == [20, 30, 3]


def test_upload_dataset_stores_custom_metadata(client, folder_of):
    metadata = format_custom_metadata([("a.png", {"weather": "fog"}), ("b.png", {"weather": "sun"})])
    client.upload_dataset(str(folder_of("a.png", "b.png")), custom_metadata=metadata, verbose=False)
    assert _fetch(client, "b.png").custom_meta_data == {"weather": "sun", "image_id": 1}


def test_upload_dataset_broken_files_are_registered_as_corrupted(client, folder_of):
    folder = folder_of("a.png", "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:2000])
    (folder / "text.jpg").write_bytes(b"no image")
    report = client.upload_dataset(str(folder), verbose=False)
    assert report.uploaded == ["a.png"]
    assert sorted(report.corrupted) == ["cut.png", "text.jpg"]
    assert report.tag.tot_size == 3
    assert client.upload_dataset(str(folder), verbose=False).skipped == ["a.png", "cut.png", "text.jpg"]


def test_upload_dataset_strict_raises_after_the_others(client, folder_of):
    def vanished():
        raise FileNotFoundError("gone")

    pairs = [("a.png", vanished), ("b.png", folder_of("b.png") / "b.png")]
    with pytest.raises(UploadIncompleteError, match=r"a\.png") as caught:
        client.upload_dataset(pairs, verbose=False, strict=True)
    assert caught.value.report.uploaded == ["b.png"]
    assert client.get_filenames() == ["b.png"]


@pytest.mark.parametrize(
    "source", ["/no/such/folder", 5, None, [("a.png",)], [("a.png", 5)], [(1, "x")], ["ab"]]
)
def test_upload_dataset_refuses_other_inputs(client, source):
    with pytest.raises(DatasetError):
        client.upload_dataset(source, verbose=False)


def test_upload_dataset_uploads_the_frames_of_a_video(client, folder_of):
    pytest.importorskip("av", reason="the package av is not installed")
    from tests.unit.lightly.test_videos import write_video

    folder = folder_of("a.png")
    write_video(folder / "film.mp4", 5)
    report = client.upload_dataset(str(folder), verbose=False, strict=True)
    frames = [f"film-{number:08d}-mp4.png" for number in range(5)]
    assert sorted(report.uploaded) == sorted(["a.png", *frames])
    assert sorted(client.get_filenames()) == sorted(["a.png", *frames])


def test_upload_dataset_refuses_videos_by_name(client, folder_of):
    folder = folder_of("a.png")
    (folder / "film.MP4").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"film\.MP4"):
        client.upload_dataset(str(folder), verbose=False)


def test_upload_dataset_refuses_an_unknown_mode(client, folder_of):
    with pytest.raises(DatasetError, match="thumbs"):
        client.upload_dataset(str(folder_of("a.png")), mode="thumbs", verbose=False)


def test_upload_dataset_cancelled_goes_on_later(client, folder_of):
    import threading

    folder = folder_of(*[f"{n}.png" for n in range(12)])
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError):
        client.upload_dataset(str(folder), verbose=False, cancel=cancel, max_workers=1)
    report = client.upload_dataset(str(folder), verbose=False)
    assert len(report.skipped) + len(report.uploaded) == 12
    assert report.tag.tot_size == 12


def test_upload_dataset_of_an_empty_folder_makes_nothing(client, folder_of):
    report = client.upload_dataset(str(folder_of()), verbose=False)
    assert (report.uploaded, report.tag) == ([], None)


def test_download_dataset_gives_back_the_bytes(uploaded, tmp_path):
    out = tmp_path / "out"
    report = uploaded.download_dataset(str(out), verbose=False)
    assert sorted(report.downloaded) == sorted(uploaded.get_filenames())
    for name in uploaded.get_filenames():
        assert (out / name).read_bytes() == (tmp_path / "images" / name).read_bytes()
    again = uploaded.download_dataset(str(out), verbose=False)
    assert again.downloaded == []
    (out / "a.png").write_bytes(b"short")
    assert uploaded.download_dataset(str(out), verbose=False).downloaded == ["a.png"]


def test_download_dataset_of_a_tag(uploaded, tmp_path):
    uploaded.create_tag_from_filenames(["ü.png"], "only one")
    report = uploaded.download_dataset(str(tmp_path / "out"), "only one", False)
    assert report.downloaded == ["ü.png"]


def test_download_dataset_unknown_tag_and_thumbnails_only_are_value_errors(
    client, uploaded, folder_of, tmp_path
):
    with pytest.raises(ValueError, match="no tag"):
        uploaded.download_dataset(str(tmp_path / "out"), tag_name="nothing")
    assert issubclass(TagDoesNotExistError, ValueError)
    client.create_new_dataset_with_unique_name("thumbs only")
    client.upload_dataset(str(folder_of("a.png")), verbose=False)
    with pytest.raises(ValueError, match="mode='full'"):
        client.download_dataset(str(tmp_path / "out"))
    client.delete_dataset_by_id(client.dataset_id)


def test_upload_file_with_signed_url_writes_from_the_present_position(uploaded):
    sample = _fetch(uploaded, "a.png")
    url = samples.fetch_write_url(
        uploaded.transport, dataset_id=uploaded.dataset_id, sample_id=sample.id, is_thumbnail=True
    )
    thumbnail = _read(uploaded, "b.png", "thumbnail")
    file = io.BytesIO(b"skipped" + thumbnail)
    file.seek(7)
    response = uploaded.upload_file_with_signed_url(file, url)
    assert 200 <= response.status_code < 300
    assert _read(uploaded, "a.png", "thumbnail") == thumbnail
    assert not file.closed


def test_upload_file_with_signed_url_takes_a_pipe(uploaded):
    sample = _fetch(uploaded, "a.png")
    url = samples.fetch_write_url(
        uploaded.transport, dataset_id=uploaded.dataset_id, sample_id=sample.id, is_thumbnail=True
    )
    thumbnail = _read(uploaded, "b.png", "thumbnail")
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as writer:
        writer.write(thumbnail)
    with os.fdopen(read_end, "rb") as reader:
        uploaded.upload_file_with_signed_url(reader, url)
    assert _read(uploaded, "a.png", "thumbnail") == thumbnail


def test_upload_custom_metadata_updates_the_named_samples_alone(uploaded):
    metadata = format_custom_metadata([("a.png", {"x": 1}), ("ü.png", {"x": 2})])
    report = uploaded.upload_custom_metadata(metadata)
    assert sorted(report.updated) == ["a.png", "ü.png"]
    assert _fetch(uploaded, "a.png").custom_meta_data == {"x": 1, "image_id": 0}
    assert not _fetch(uploaded, "b.png").custom_meta_data


def test_upload_custom_metadata_of_unknown_names_warns(uploaded):
    metadata = format_custom_metadata([("a.png", {"x": 1}), ("nobody.png", {"x": 2})])
    with pytest.warns(UserWarning, match=r"nobody\.png"):
        report = uploaded.upload_custom_metadata(metadata)
    assert report.unknown == ["nobody.png"]


def _read_printed(capfd) -> tuple[str, str]:
    """What the client printed; the server runs in this process too, and logs when it likes."""
    out, err = capfd.readouterr()
    lines = out.splitlines(keepends=True)
    return "".join(line for line in lines if "component=watcher.platform" not in line), err


def test_verbose_prints_to_stderr_and_silence_prints_nothing(client, folder_of, capfd):
    folder = folder_of("a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.upload_dataset(str(folder), verbose=False)
        assert _read_printed(capfd) == ("", "")
        folder_of("b.png")
        client.upload_dataset(str(folder), verbose=True)
    out, err = _read_printed(capfd)
    assert out == ""
    assert "upload: 100%" in err
