"""What arrives when, and in which state."""

from __future__ import annotations

import io
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from watcher.demo.scenes import LAYOUTS, Camera
from watcher.domain.clock import Clock, SystemClock

# Within the default overlap of ten minutes in which late files are looked for.
LATE_BY_S: Final = 240.0
LONGEST_PAUSE_S: Final = 4.0
_FRAME_NUMBER: Final = re.compile(r"frame-(\d{6,})\.jpg")


@dataclass(slots=True)
class DemoReport:
    """What was written; names are relative to the folder, with `/`.

    Attributes:
        frames: all sound frames, the late and the half-written one included.
        late: those of them with an old timestamp.
        half_written: those of them that lay half written for a while.
        broken: frames that cannot be decoded.
        not_pictures: text files named like a picture.
        n_bytes: bytes of all of them.
    """

    frames: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    half_written: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    not_pictures: list[str] = field(default_factory=list)
    n_bytes: int = 0


def run_demo(
    folder: Path,
    *,
    seconds: float,
    rate_per_s: float,
    seed: int,
    stop: threading.Event,
    say: Callable[[str], None],
    clock: Clock | None = None,
) -> DemoReport:
    """Writes frames until the time is over or `stop` is set.

    Names are `<camera>/<date>/frame-<number>.jpg`; numbers go on where an earlier demo ended. All files but the
    half-written one appear at once under their name: they are written beside it under a name with a leading dot.

    Args:
        folder: the watched folder; made if missing.
        seconds: length of the demo, which stands for a day from dawn to night.
        rate_per_s: frames a second on average; every eighth time a burst of five.
        seed: of everything that is drawn; the same seed shows the same day.
        stop: ends the demo within one frame; a half-written file is still completed.
        say: told in a sentence what arrives.
        clock: for tests.

    Raises:
        ValueError: `seconds` or `rate_per_s` is not above 0.
        OSError: the folder cannot be written.
    """
    if seconds <= 0 or rate_per_s <= 0:
        raise ValueError(f"seconds and rate_per_s must be above 0, got {seconds} and {rate_per_s}")
    return _Demo(folder, seconds=seconds, rate_per_s=rate_per_s, seed=seed, say=say, clock=clock).run(stop)


class _Demo:
    def __init__(
        self,
        folder: Path,
        *,
        seconds: float,
        rate_per_s: float,
        seed: int,
        say: Callable[[str], None],
        clock: Clock | None,
    ) -> None:
        self._folder = folder
        self._seconds = seconds
        self._rate = rate_per_s
        self._say = say
        self._clock = clock or SystemClock()
        self._rng = np.random.default_rng(seed)
        self._cameras = [Camera(layout, seed=seed + number) for number, layout in enumerate(LAYOUTS)]
        self._steps = [0] * len(LAYOUTS)
        self._traffic = [(0, 0)] * len(LAYOUTS)
        self._numbers = [_find_next_number(folder / layout.name) for layout in LAYOUTS]
        self._report = DemoReport()
        self._start_s = self._clock.monotonic_s()
        self._unfinished: tuple[float, Path, bytes] | None = None

    def run(self, stop: threading.Event) -> DemoReport:
        # One of each kind a demo, spread so that each can be followed by eye.
        events = [
            (0.2, self._write_text),
            (0.4, self._write_late),
            (0.55, self._write_first_half),
            (0.75, self._write_broken),
        ]
        self._say(
            f"{len(self._cameras)} cameras send about {self._rate:g} frames a second for {self._seconds:g} seconds."
        )
        n_ticks = 0
        while not stop.is_set() and self._compute_share() < 1.0:
            while events and events[0][0] <= self._compute_share():
                events.pop(0)[1]()
            self._finish_half_written()
            n_ticks += 1
            n_frames = 5 if n_ticks % 8 == 4 else 1
            self._write_frames(n_frames, stop)
            pause_s = float(self._rng.uniform(0.6, 1.4)) * n_frames / self._rate
            self._clock.wait_s(stop, min(pause_s, self._seconds * (1 - self._compute_share())))
        if not stop.is_set():
            for _, write in events:
                write()
        self._finish_half_written(now=True)
        report = self._report
        self._say(
            f"The demo is over: {len(report.frames)} frames, {len(report.broken)} broken, "
            f"{len(report.not_pictures)} no picture, {report.n_bytes / 1e6:.1f} MB."
        )
        return report

    def _compute_share(self) -> float:
        return (self._clock.monotonic_s() - self._start_s) / self._seconds

    def _write_frames(self, n_frames: int, stop: threading.Event) -> None:
        camera = int(self._rng.integers(len(self._cameras)))
        if n_frames > 1:
            self._say(
                f"{self._cameras[camera].layout.name} saw something move: a burst of {n_frames} frames."
            )
            self._traffic[camera] = (int(self._rng.integers(1, 4)), int(self._rng.integers(0, 3)))
        elif self._rng.random() < 0.2:
            self._traffic[camera] = (int(self._rng.integers(0, 3)), int(self._rng.integers(0, 2)))
        for _ in range(n_frames):
            if stop.is_set():
                return
            path = self._choose_path(camera)
            self._place(path, self._draw(camera))
            self._report.frames.append(self._name(path))
        if n_frames == 1:
            self._say(f"{self._report.frames[-1]} arrived.")

    def _write_text(self) -> None:
        path = self._choose_path(1)
        self._place(path, b"The disk of this camera is full.\n" * 20)
        self._report.not_pictures.append(self._name(path))
        self._say(f"{self._name(path)} arrived, but it is a text file; it belongs in quarantine.")

    def _write_late(self) -> None:
        path = self._choose_path(2)
        self._place(path, self._draw(2), modified_s=self._clock.now_s() - LATE_BY_S)
        self._report.frames.append(self._name(path))
        self._report.late.append(self._name(path))
        self._say(
            f"{self._name(path)} arrived late: its timestamp is {LATE_BY_S / 60:g} minutes old, "
            "so only the overlap finds it."
        )

    def _write_first_half(self) -> None:
        path = self._choose_path(0)
        content = self._draw(0)
        middle = len(content) // 2
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[:middle])
        pause_s = min(LONGEST_PAUSE_S, self._seconds * 0.2)
        self._unfinished = (self._clock.monotonic_s() + pause_s, path, content[middle:])
        self._report.frames.append(self._name(path))
        self._report.half_written.append(self._name(path))
        self._report.n_bytes += len(content)
        self._say(f"{self._name(path)} is half written; the rest follows in {pause_s:g} seconds.")

    def _finish_half_written(self, *, now: bool = False) -> None:
        if self._unfinished is None or (not now and self._clock.monotonic_s() < self._unfinished[0]):
            return
        _, path, rest = self._unfinished
        self._unfinished = None
        with path.open("ab") as file:
            file.write(rest)
        self._say(f"{self._name(path)} is complete now.")

    def _write_broken(self) -> None:
        path = self._choose_path(1)
        content = bytearray(self._draw(1))
        # Where the tables lie without which no pixel can be read; the ends stay, so it looks like a whole JPEG.
        content[20:700] = bytes(int(value) for value in self._rng.integers(0, 250, 680))
        self._place(path, bytes(content))
        self._report.broken.append(self._name(path))
        self._say(
            f"{self._name(path)} arrived broken; it belongs in quarantine and must not hold up the rest."
        )

    def _draw(self, camera: int) -> bytes:
        self._steps[camera] += 1
        n_cars, n_people = self._traffic[camera]
        picture = self._cameras[camera].draw(
            hour=min(1.0, self._compute_share()), step=self._steps[camera], n_cars=n_cars, n_people=n_people
        )
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=86)
        return buffer.getvalue()

    def _choose_path(self, camera: int) -> Path:
        date = time.strftime("%Y-%m-%d", time.localtime(self._clock.now_s()))
        number = self._numbers[camera]
        self._numbers[camera] += 1
        return self._folder / self._cameras[camera].layout.name / date / f"frame-{number:06d}.jpg"

    def _place(self, path: Path, content: bytes, *, modified_s: float | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.part")
        hidden.write_bytes(content)
        if modified_s is not None:
            os.utime(hidden, (modified_s, modified_s))
        hidden.replace(path)
        self._report.n_bytes += len(content)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


def _find_next_number(folder: Path) -> int:
    numbers = (_FRAME_NUMBER.fullmatch(path.name) for path in folder.glob("*/frame-*.jpg"))
    return max((int(found[1]) for found in numbers if found), default=0) + 1
