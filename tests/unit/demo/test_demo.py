"""The demo shows each kind of arrival once, and leaves nothing half done."""

from __future__ import annotations

import re
import threading
import time

import numpy as np
import pytest
from PIL import Image

from watcher.demo import run_demo
from watcher.demo.arrivals import LATE_BY_S
from watcher.demo.scenes import LAYOUTS, Camera
from watcher.domain.errors import ImageError
from watcher.embedders.descriptor import DescriptorEmbedder
from watcher.images import read_image


class StepClock:
    """Time that passes only while somebody waits, and a little with each look."""

    def __init__(self) -> None:
        self.seconds = 1_790_000_000.0

    def now_s(self) -> float:
        return self.seconds

    def monotonic_s(self) -> float:
        self.seconds += 0.001
        return self.seconds

    def wait_s(self, event: threading.Event, seconds: float) -> bool:
        self.seconds += max(0.0, seconds)
        return event.is_set()


def run(folder, *, seconds=40.0, rate_per_s=0.7, seed=1, stop=None, say=lambda _: None, clock=None):
    return run_demo(
        folder,
        seconds=seconds,
        rate_per_s=rate_per_s,
        seed=seed,
        stop=stop or threading.Event(),
        say=say,
        clock=clock or StepClock(),
    )


def list_names(folder) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_demo_writes_each_kind_of_file(tmp_path):
    said: list[str] = []
    clock = StepClock()
    report = run(tmp_path, say=said.append, clock=clock)

    assert list_names(tmp_path) == sorted(report.frames + report.broken + report.not_pictures)
    assert len(report.frames) >= 15
    assert [
        len(names) for names in (report.late, report.half_written, report.broken, report.not_pictures)
    ] == [1] * 4
    for name in report.frames:
        assert re.fullmatch(r"cam-[123]/\d{4}-\d\d-\d\d/frame-\d{6}\.jpg", name)
        assert read_image(tmp_path / name).pixels.size == (960, 640)
    for name in report.broken + report.not_pictures:
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        assert not caught.value.truncated, name
    age_s = clock.seconds - (tmp_path / report.late[0]).stat().st_mtime
    assert LATE_BY_S <= age_s < 600
    assert report.n_bytes == sum((tmp_path / name).stat().st_size for name in list_names(tmp_path))
    for word in ("burst", "late", "half written", "complete now", "broken", "text file", "over"):
        assert any(word in sentence for sentence in said), word


def test_half_written_file_is_truncated_until_it_is_completed(tmp_path):
    states = []

    def look(sentence: str) -> None:
        name = sentence.split(" ", maxsplit=1)[0]
        if "half written" in sentence:
            with pytest.raises(ImageError) as caught:
                read_image(tmp_path / name)
            states.append(("half", caught.value.truncated))
        elif "complete now" in sentence:
            states.append(("whole", read_image(tmp_path / name).pixels.size == (960, 640)))

    run(tmp_path, say=look)
    assert states == [("half", True), ("whole", True)]


def test_stop_completes_the_half_written_file_and_ends_at_once(tmp_path):
    stop = threading.Event()

    def say(sentence: str) -> None:
        if "half written" in sentence:
            stop.set()

    report = run(tmp_path, stop=stop, say=say)
    assert report.broken == []
    assert read_image(tmp_path / report.half_written[0]).pixels.size == (960, 640)


def test_short_demo_still_shows_every_kind(tmp_path):
    report = run(tmp_path, seconds=0.5, rate_per_s=2)
    assert [
        len(names) for names in (report.late, report.half_written, report.broken, report.not_pictures)
    ] == [1] * 4


def test_second_demo_takes_no_name_of_the_first(tmp_path):
    first = run(tmp_path, seconds=5, rate_per_s=1)
    second = run(tmp_path, seconds=5, rate_per_s=1)
    assert not set(first.frames) & set(second.frames)
    assert set(first.frames + second.frames) < set(list_names(tmp_path))


def test_demo_keeps_real_time(tmp_path):
    start = time.monotonic()
    run_demo(tmp_path, seconds=1.0, rate_per_s=3, seed=0, stop=threading.Event(), say=lambda _: None)
    assert 0.8 < time.monotonic() - start < 60


@pytest.mark.parametrize("changes", [{"seconds": 0}, {"rate_per_s": -1}])
def test_senseless_demo_is_refused(tmp_path, changes):
    with pytest.raises(ValueError, match="above 0"):
        run(tmp_path, **changes)


def test_frames_of_one_camera_are_near_duplicates_and_cameras_differ():
    embedder = DescriptorEmbedder()
    frames = [
        Camera(layout, seed=number).draw(hour=0.4, step=step, n_cars=0, n_people=0)
        for number, layout in enumerate(LAYOUTS)
        for step in (1, 2)
    ]
    vectors = embedder.embed([read_image(_encode(frame)) for frame in frames])
    similar = vectors @ vectors.T
    assert all(similar[2 * k, 2 * k + 1] > 0.97 for k in range(3))
    assert max(similar[0, 2], similar[0, 4], similar[2, 4]) < 0.95


def test_same_seed_draws_the_same_frame():
    first, second = (
        Camera(LAYOUTS[0], seed=5).draw(hour=0.9, step=3, n_cars=2, n_people=1) for _ in range(2)
    )
    assert np.array_equal(np.asarray(first), np.asarray(second))


def _encode(picture: Image.Image) -> bytes:
    import io

    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=86)
    return buffer.getvalue()
