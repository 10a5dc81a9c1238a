"""Which seconds a poll lists: the fresh window and the overlap before it."""

from __future__ import annotations

from dataclasses import dataclass

from watcher.domain.models import PollRules


@dataclass(frozen=True, slots=True)
class Window:
    """Both ends included, unix seconds.

    Attributes:
        from_s, to_s: the fresh window; empty if from_s > to_s.
        overlap_from_s: the overlap is [overlap_from_s, from_s - 1]; None on the first poll of a watch.
    """

    from_s: int
    to_s: int
    overlap_from_s: int | None

    @property
    def is_empty(self) -> bool:
        """Whether the fresh window holds no second."""
        return self.from_s > self.to_s


def compute_window(*, mark_s: int | None, server_now_s: int, rules: PollRules) -> Window:
    """The window of a poll that starts at `server_now_s` by the server's clock.

    The end is frozen here, before the first page, and never moves back behind the mark: a server clock that went
    back gives an empty fresh window, while the overlap is still listed.
    """
    to_s = max(0, server_now_s - rules.hold_back_s)
    if mark_s is None:
        return Window(from_s=0, to_s=to_s, overlap_from_s=None)
    overlap_from_s = max(0, mark_s - rules.overlap_s) if rules.overlap_s > 0 else None
    return Window(from_s=mark_s + 1, to_s=max(to_s, mark_s), overlap_from_s=overlap_from_s)
