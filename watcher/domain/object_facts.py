"""What a read URL tells of an object, and what follows from it: whether it was written again, or still is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFacts:
    """Length in bytes, last change in unix seconds, ETag; None where the server does not tell."""

    size_bytes: int | None = None
    modified_s: int | None = None
    etag: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether anything was told."""
        return self != ObjectFacts()

    def differs_from(self, before: ObjectFacts) -> bool:
        """Whether it is another content, by the best of what both times tell: ETag, else length and time."""
        if self.etag is not None and before.etag is not None:
            return self.etag != before.etag
        pairs = ((self.size_bytes, before.size_bytes), (self.modified_s, before.modified_s))
        return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def may_still_be_written(
    now: ObjectFacts,
    *,
    before: ObjectFacts,
    now_s: float,
    settle_s: float,
    n_looks: int,
    settle_attempts: int,
) -> bool:
    """Whether a file that ends early deserves another look.

    It does while it is younger than the settle time, while it changes between two looks, and for some looks after.

    Args:
        now: what the object is.
        before: what it was at the look before.
        now_s: unix time.
        settle_s: pause between two looks.
        n_looks: looks before this one.
        settle_attempts: so many looks are granted to a file that does not change.
    """
    is_young = now.modified_s is not None and 0 <= now_s - now.modified_s < settle_s
    return is_young or n_looks < settle_attempts or (n_looks > 0 and now.differs_from(before))
