"""Videos cut into frames: names, order, any frame again, and what is no video."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from watcher.domain.errors import DatasetError
from watcher.lightly.workflows import sources
from watcher.lightly.workflows.sources import list_upload_items
from watcher.lightly.workflows.videos import Video, load_decoder

av = load_decoder()
if av is None:
    pytest.skip("the package av is not installed", allow_module_level=True)

N_FRAMES = 80


def write_video(path: Path, n_frames: int = N_FRAMES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(n_frames):
            pixels = np.full((48, 64, 3), 3 * number, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def level_of(file) -> float:
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert image.size == (64, 48)
        return float(np.asarray(image).mean())


def test_folder_with_a_video_gives_its_frames_beside_the_images(tmp_path):
    write_video(tmp_path / "day 1" / "film.v2.mp4", 3)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    names = [item.file_name for item in list_upload_items(tmp_path)]
    assert names == ["a.png", *(f"day 1/film.v2-{number:08d}-mp4.png" for number in range(3))]


def test_every_frame_is_its_own_in_any_order_and_from_any_thread(tmp_path):
    items = list_upload_items(write_video(tmp_path / "film.mp4").parent)
    assert len(items) == N_FRAMES
    numbers = [79, 0, 1, 2, 40, 39, 5, 78, 0]
    with ThreadPoolExecutor(4) as pool:
        levels = list(pool.map(lambda number: level_of(items[number].open_file()), numbers))
    assert levels == pytest.approx([3 * number for number in numbers], abs=4)


def test_frames_kept_in_memory_are_bounded(tmp_path):
    video = Video(av, write_video(tmp_path / "film.mp4"))
    for number in range(N_FRAMES):
        video.open_frame(number)
    assert len(video._kept) <= 32


def test_file_that_is_no_video_is_named(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"no video")
    with pytest.raises(DatasetError, match=r"film\.mp4"):
        list_upload_items(tmp_path)


def test_video_that_shrank_is_an_error_not_a_loop(tmp_path):
    video = Video(av, write_video(tmp_path / "film.mp4", 4))
    with pytest.raises(DatasetError, match="no frame 9"):
        video.open_frame(9)


def test_video_without_the_extra_is_refused_with_the_way_out(tmp_path, monkeypatch):
    write_video(tmp_path / "film.mp4", 1)
    monkeypatch.setattr(sources, "load_decoder", lambda: None)
    with pytest.raises(DatasetError, match=r"film\.mp4.*datasource-watcher\[frames\]"):
        list_upload_items(tmp_path)
