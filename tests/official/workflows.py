"""What both generations share: a run of named workflows that reports each one, and the pictures they work on.

Runs inside the official clients' environments, so nothing of this project is imported here.
"""

from __future__ import annotations

import csv
import json
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

N_IMAGES = 12
N_DIMENSIONS = 6


def make_pictures(folder: Path, names: list[str]) -> None:
    """Different JPEG files, with fixed content."""
    random = np.random.default_rng(5)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, size=(60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((320, 240)).save(path, quality=90)


def make_folders(target: Path, names: list[str]) -> None:
    """The folders that a download of `names` below `target` needs.

    Both clients look whether a folder is there and then make it, from several threads: the thread that comes second
    fails, and its picture is left out with a warning. That is no fault of the server's.
    """
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)


def make_vectors(n: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, N_DIMENSIONS)).astype(np.float32)


def write_csv(path: Path, names: list[str], vectors: np.ndarray) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["filenames", *(f"embedding_{i}" for i in range(vectors.shape[1])), "labels"])
        for name, vector in zip(names, vectors, strict=True):
            writer.writerow([name, *(float(value) for value in vector), 0])


def read_csv(text: str) -> tuple[list[str], list[list[str]]]:
    rows = list(csv.reader(text.splitlines()))
    return rows[0], rows[1:]


def bits_of(mask: str) -> list[int]:
    value = int(mask, 16)
    return [position for position in range(value.bit_length()) if value >> position & 1]


def check_farthest_first(vectors: np.ndarray, picked: list[int], preselected: list[int]) -> None:
    """The property of greedy farthest-point picks that needs no order.

    With r the least distance between a new pick and all others picked, no sample left out is farther than r from
    the picked ones, or the greedy rule would have taken it.
    """
    new = [position for position in picked if position not in preselected]
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    gaps = [min(distances[p, q] for q in picked if q != p) for p in new]
    left = [position for position in range(len(vectors)) if position not in picked]
    cover = max((min(distances[p, q] for q in picked) for p in left), default=0.0)
    assert cover <= min(gaps) + 1e-4, (cover, min(gaps))


class Run:
    """Carries out functions in order and prints a line of JSON for each."""

    def __init__(self) -> None:
        self.steps = []

    def step(self, function):
        self.steps.append(function)
        return function

    def main(self) -> None:
        warnings.simplefilter("ignore")
        context = dict(zip(("url", "token", "pictures", "work"), sys.argv[1:5], strict=True))
        for function in self.steps:
            report = {"step": function.__name__, "ok": True}
            try:
                function(context)
            except BaseException:  # noqa: BLE001 - each step is reported
                report = {"step": function.__name__, "ok": False, "error": traceback.format_exc()[-3000:]}
            print("REPORT " + json.dumps(report), flush=True)  # noqa: T201 - the report is read from there
