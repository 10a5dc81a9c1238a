"""Pictures that arrive while a daemon works, and what must be so when it has come to rest."""

from __future__ import annotations

import io
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from tests.acceptance.crash_scene import WATCH

N_PICTURES = 24
BROKEN = "broken.jpg"
BUDGET = 1
# What the scene's settings leave to be changed for many pictures that arrive in time.
VARIABLES = {
    f"{WATCH}BATCH__MIN_SAMPLES": "2",
    f"{WATCH}BATCH__MAX_WAIT_S": "2",
    f"{WATCH}BATCH__MAX_SAMPLES": "8",
    f"{WATCH}UPLOAD__WORKERS": "3",
    f"{WATCH}POLL__HOLD_BACK_S": "1",
    "WATCHER_API__READ_TIMEOUT_S": "10",
}


def put_whole(folder: Path, name: str, body: bytes) -> None:
    """The file appears at once under its name."""
    hidden = folder / f".{name}.part"
    hidden.write_bytes(body)
    hidden.replace(folder / name)


def draw(number: int) -> bytes:
    """A picture unlike the others."""
    small = np.random.default_rng(number).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


class Producer:
    """Lets the pictures arrive, one after another, in a thread of its own."""

    def __init__(self, folder: Path, *, n: int = N_PICTURES, pause_s: float = 0.3) -> None:
        self.names = [f"{number:03d}.jpg" for number in range(n)]
        self._folder = folder
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for number, name in enumerate(self.names):
            put_whole(self._folder, name, draw(number))
            if number == len(self.names) // 2:
                put_whole(self._folder, BROKEN, b"no picture")
            self._stop.wait(self._pause_s)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()  # the rest comes at once
        self._thread.join()


def check_end(state: dict[str, Any], names: list[str]) -> None:
    """The end of a run without faults, whatever happened on the way; `state` is what the scene collects."""
    ledger = {row[0]: row[1] for row in state["ledger"]}
    assert ledger == {**dict.fromkeys(names, "done"), BROKEN: "quarantined"}
    assert state["dataset"] == sorted(names), "each once on the server, and nothing else"
    assert state["n_files_behind_them"] == 2 * len(names)
    assert state["n_vectors"] == len(names)
    assert all(batch[1] == "done" for batch in state["batches"]), state["batches"]
    assert all(run[2] == "done" for run in state["runs"]), state["runs"]
    picked = Counter(row[1] for row in state["picks"])
    assert max(picked.values()) == 1, "a picture was picked twice"
    delivered = Counter(name for lines in state["manifests"].values() for name in lines)
    assert delivered == picked
    sampled = [batch[0] for batch in state["batches"] if batch[3] is not None]
    assert sorted(state["manifests"]) == sorted(f"{key}.jsonl" for key in sampled)
    assert len(picked) == BUDGET * len(sampled)
    assert state["tags"]["initial-tag"] == len(names)
    assert set(sampled) <= set(state["tags"])
    assert max(rows for _, rows in state["embeddings"].values()) == len(names)
    assert all(is_processed for is_processed, _ in state["embeddings"].values())
    assert state["marks"] == {"server is not ahead": True, "server was told": True}
    assert state["temporary files left"] == []
