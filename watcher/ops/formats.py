"""How the pages write times, spans and numbers."""

from __future__ import annotations

from datetime import UTC, datetime


def format_moment(seconds: float | None) -> str:
    """Unix seconds as UTC; `never` for None."""
    return (
        "never" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    )


def format_span(seconds: float | None) -> str:
    """A duration in its largest sensible unit."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


def format_number(n: int) -> str:
    """With commas between the thousands."""
    return f"{n:,}"
