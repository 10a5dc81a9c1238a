"""Draws the curves of `docs/scaling.md` from what `benchmarks/scaling_curves.py` measured.

ROWS=2000000 CURVES=docs/pictures/scaling.json python -m benchmarks scaling_curves
python docs/pictures/make_scaling.py
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
WIDTH, HEIGHT = 300, 220
LEFT, TOP, PLOT_W, PLOT_H = 44, 34, 240, 140
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700")

Points = list[tuple[float, float]]


class Panel:
    """One diagram with a logarithmic x axis; y begins at 0."""

    def __init__(
        self, title: str, x_name: str, *, y_most: float, xs: Sequence[float], percent: bool = False
    ) -> None:
        self._y_most = y_most
        self._low, self._high = math.log10(min(xs)), math.log10(max(xs))
        self._percent = percent
        self._parts = [
            f'<text x="{LEFT}" y="18" font-weight="bold">{title}</text>',
            f'<text x="{LEFT + PLOT_W / 2}" y="{TOP + PLOT_H + 38}" text-anchor="middle">{x_name}</text>',
        ]
        for number in range(5):
            value = y_most * number / 4
            y = self._y(value)
            shown = f"{value:.0%}" if percent else f"{value:.2g}"
            self._parts.append(f'<path d="M{LEFT} {y:.1f}h{PLOT_W}" stroke="#d0d7de"/>')
            self._parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{shown}</text>')
        for value in xs:
            shown = (
                f"{value / 1e6:g} M"
                if value >= 1e6
                else f"{value / 1e3:g} k"
                if value >= 1e3
                else f"{value:g}"
            )
            place = f'x="{self._x(value):.1f}" y="{TOP + PLOT_H + 18}"'
            self._parts.append(f'<text {place} text-anchor="middle">{shown}</text>')

    def _x(self, value: float) -> float:
        return LEFT + PLOT_W * (math.log10(value) - self._low) / (self._high - self._low)

    def _y(self, value: float) -> float:
        return TOP + PLOT_H * (1 - min(value, self._y_most) / self._y_most)

    def add_line(self, points: Points, *, name: str, number: int) -> None:
        """A curve with its name in the legend."""
        colour = COLOURS[number]
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
        self._parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        self._parts += [
            f'<circle cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="3" fill="{colour}"/>' for x, y in points
        ]
        self._parts.append(
            f'<text x="{LEFT + 6 + number * 60}" y="{TOP + PLOT_H - 6}" fill="{colour}">{name}</text>'
        )

    def draw(self, column: int) -> str:
        """The panel at its place."""
        return f'<g transform="translate({column * WIDTH} 0)">{"".join(self._parts)}</g>'


def draw(curves: dict[str, list[dict[str, float]]]) -> str:
    """The picture as SVG."""
    ledger, shards, workers = curves["ledger"], curves["shards"], curves["workers"]
    names = ("poll", "claim", "status", "scrape")
    growth = {
        name: [(row["rows"], row[f"{name}_s"] / ledger[0][f"{name}_s"]) for row in ledger] for name in names
    }
    most = max(2.0, *(y for points in growth.values() for _x, y in points))
    first = Panel(
        "time, smallest ledger = 1",
        "rows in the ledger",
        y_most=math.ceil(most),
        xs=[r["rows"] for r in ledger],
    )
    for number, name in enumerate(names):
        first.add_line(growth[name], name=name, number=number)
    idle = [(row["shard"], row["idle"]) for row in shards]
    second = Panel(
        "a worker's time between shards",
        "pictures a shard",
        y_most=max(0.1, math.ceil(max(y for _x, y in idle) * 10) / 10),
        xs=[x for x, _y in idle],
        percent=True,
    )
    second.add_line(idle, name="", number=0)
    speed = [(row["workers"], workers[0]["s"] / row["s"]) for row in workers]
    third = Panel("speed, one worker = 1", "workers, on 2 cores", y_most=2.0, xs=[x for x, _y in speed])
    third.add_line(speed, name="", number=2)
    panels = "".join(panel.draw(column) for column, panel in enumerate((first, second, third)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {3 * WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="white"/>{panels}</svg>\n'
    )


if __name__ == "__main__":
    measured = json.loads((HERE / "scaling.json").read_text(encoding="utf-8"))
    (HERE / "scaling.svg").write_text(draw(measured), encoding="utf-8")
