"""Draws what the descriptor picks from the demo stream beside what random picks.

    python docs/pictures/make_picks.py [--out docs/pictures/picks.jpg]

The demo writes its day of 150 seconds into a folder, at once, by a clock that does not wait. Every sound frame becomes
a vector; twelve are picked by CORESET and twelve at random (seed 0), as the platform picks them.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from watcher.demo import run_demo
from watcher.embedders.descriptor import DescriptorEmbedder
from watcher.platform.samplers import pick

N_PICKS, COLUMNS = 12, 6
WIDTH, HEIGHT, GAP, TITLE = 198, 132, 6, 34


class HurriedClock:
    """Every wait is over at once."""

    def __init__(self) -> None:
        self._now_s = 1_780_000_000.0

    def now_s(self) -> float:
        return self._now_s

    def monotonic_s(self) -> float:
        return self._now_s

    def wait_s(self, event: threading.Event, seconds: float) -> bool:
        self._now_s += max(0.0, seconds)
        return event.is_set()


def draw_panel(paths: list[Path], title: str) -> Image.Image:
    """Thumbnails in the order of their picking, below a title."""
    rows = -(-len(paths) // COLUMNS)
    panel = Image.new("RGB", (COLUMNS * (WIDTH + GAP) - GAP, TITLE + rows * (HEIGHT + GAP)), "white")
    draw = ImageDraw.Draw(panel)
    draw.text((2, 6), title, fill="black", font=ImageFont.load_default(18))
    for number, path in enumerate(paths):
        place = ((number % COLUMNS) * (WIDTH + GAP), TITLE + (number // COLUMNS) * (HEIGHT + GAP))
        with Image.open(path) as picture:
            panel.paste(picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), place)
        label = f"{path.parts[-3]} {path.stem.removeprefix('frame-')}"
        draw.rectangle((*place, place[0] + 92, place[1] + 16), fill="black")
        draw.text((place[0] + 3, place[1] + 1), label, fill="white", font=ImageFont.load_default(12))
    return panel


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("picks.jpg"))
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory(prefix="picks-") as name:
        folder = Path(name)
        report = run_demo(
            folder,
            seconds=150,
            rate_per_s=2,
            seed=0,
            stop=threading.Event(),
            say=lambda _line: None,
            clock=HurriedClock(),
        )
        paths = [folder / frame for frame in sorted(report.frames)]
        embedder = DescriptorEmbedder()
        vectors = embedder.embed_bytes([path.read_bytes() for path in paths]).vectors
        panels = []
        for method, title in (
            ("CORESET", f"CORESET on the descriptor: {N_PICKS} of {len(paths)} frames, first pick first"),
            ("RANDOM", f"at random: {N_PICKS} of the same {len(paths)} frames"),
        ):
            picks = pick(
                method=method,
                vectors=vectors,
                candidates=np.arange(len(paths)),
                preselected=np.arange(0),
                n_samples=N_PICKS,
                min_distance=None,
                seed=0,
            )
            panels.append(draw_panel([paths[position] for position in picks.positions], title))
            gaps = np.linalg.norm(vectors[:, None] - vectors[None, picks.positions], axis=2).min(axis=1)
            print(
                f"{method}: the frame farthest from every pick is {gaps.max():.3f} away, the mean {gaps.mean():.3f}"
            )
    sheet = Image.new("RGB", (panels[0].width + 12, sum(panel.height for panel in panels) + 16), "white")
    sheet.paste(panels[0], (6, 4))
    sheet.paste(panels[1], (6, panels[0].height + 12))
    sheet.save(out, quality=84, optimize=True)
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
