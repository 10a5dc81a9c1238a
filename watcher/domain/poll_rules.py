"""How a watch is listed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class OverwritePolicy(StrEnum):
    """What happens to a processed object that was written again under its name.

    `ignore`: nothing, and nobody looks. `again`: it goes through the pipeline again, in the place it has. `alert`:
    it is counted and shown.
    """

    IGNORE = "ignore"
    AGAIN = "again"
    ALERT = "alert"


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRules:
    """How a datasource is listed.

    Attributes:
        hold_back_s: the window ends this long before the server's present, so that objects still being stored
            under the current second are not passed.
        overlap_s: how far before the mark is listed again, for objects that show up late; 0 for never. More when
            late ones are seen.
        overlap_min_s: with time the overlap shrinks to this while nothing late is seen; None: `overlap_s`.
        overlap_max_s: however late an object was, the overlap grows no further.
        max_clock_error_s: a server's clock that differs more than this from ours, or goes back further behind the
            mark, is not believed, and the poll waits.
        overwritten: what happens to objects that are written again.
        max_pages: a listing longer than this is an error, not a loop.
        source_check_interval_s: the source is looked at this often for what polls passed over; 0 for never.
        reconcile_interval_s: datasource, ledger and dataset are compared in full this often; 0 for never.
    """

    hold_back_s: int = 5
    overlap_s: int = 600
    overlap_min_s: int | None = None
    overlap_max_s: int = 21_600
    max_clock_error_s: int = 86_400
    overwritten: OverwritePolicy = OverwritePolicy.ALERT
    max_pages: int = 1_000_000
    source_check_interval_s: float = 900.0
    reconcile_interval_s: float = 86_400.0
