"""Whether the source moved on and we did not, although every poll ended well.

A poll that ends well proves nothing: a clock that stands still behind a cache, a listing that leaves something out or
a rule of ours that passes over too much all look like a source without news. So now and then the source is asked in
another way than polls do: for what it dates after the mark, or within the last while, up to the present by *our*
clock, and whatever is not in the ledger is noted. What a later look lists again, and a poll that began in between and
ended well did not bring, was passed over.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from watcher.database.engine import Database
from watcher.domain.clock import Clock
from watcher.domain.crash_points import crash_point
from watcher.domain.models import Watch, WatchConfig
from watcher.domain.own_output import SERVERS_OUTPUT, is_input
from watcher.lightly.transport import Transport
from watcher.lightly.workflows.listing import iter_pages
from watcher.logs import get_logger
from watcher.store import source_checks, watches
from watcher.store.source_checks import SourceCheck

_log = get_logger("source_check")

_MOST_PAGES = 3
_MOST_NAMES = 100
_NAMES_IN_LOG = 5
_LONGEST_NAME_IN_LOG = 200
# A poll that begins this much later must have listed what was sighted, however coarse the clocks are.
_MARGIN_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChecker:
    """Looks at the source of one watch; three pages of a listing at the most, and one small transaction.

    Attributes:
        own_output: matches names that the daemon or the server wrote itself.
    """

    database: Database
    transport: Transport
    config: WatchConfig
    watch_id: int
    clock: Clock
    own_output: re.Pattern[str] = SERVERS_OUTPUT

    def run(self) -> SourceCheck | None:
        """One look, compared with the one before, and kept.

        Returns:
            What was found; None before the first poll, when all is news.

        Raises:
            WatcherError: the source or the store failed; the look before stays as it was.
        """
        with self.database.read() as session:
            watch = watches.load_watch_by_id(session, watch_id=self.watch_id)
            before = source_checks.load_check(session, watch_id=self.watch_id)
        if watch.mark_s is None:
            return None
        now_s = self.clock.now_s()
        names = self._list(watch, mark_s=watch.mark_s, now_s=int(now_s))
        with self.database.write() as session:
            # In this order: a poll that ends between the two has brought its names.
            polled_ms = source_checks.load_last_poll_start(session, watch_id=self.watch_id) or 0
            unknown = source_checks.find_unknown(session, watch_id=self.watch_id, file_names=names)
            first_seen = {} if before is None else before.sighted
            now_ms = int(now_s * 1000)
            sighted = {name: first_seen.get(name, now_ms) for name in unknown}
            # The oldest are kept, so that none of them is forgotten for new ones.
            kept = dict(sorted(sighted.items(), key=lambda item: item[1])[:_MOST_NAMES])
            margin_ms = 1000 * (self.config.poll.hold_back_s + _MARGIN_S)
            ahead = [name for name, at_ms in kept.items() if polled_ms >= at_ms + margin_ms]
            check = SourceCheck(checked_ms=now_ms, n_ahead=len(ahead), sighted=kept)
            source_checks.record_check(session, watch_id=self.watch_id, check=check)
        crash_point("source_check.recorded")
        if ahead:
            _log.warning(
                "source.ahead",
                watch=self.config.name,
                n=len(ahead),
                file_names=[name[:_LONGEST_NAME_IN_LOG] for name in ahead[:_NAMES_IN_LOG]],
            )
        return check

    def _list(self, watch: Watch, *, mark_s: int, now_s: int) -> list[str]:
        """The names of the first pages, own output and sidecars left out."""
        # So far back that a look still lists what the look before it sighted.
        recent_s = now_s - int(2 * self.config.poll.source_check_interval_s) - _MARGIN_S
        first, last = watch.listing.compute_range(max(0, min(mark_s + 1, recent_s)), now_s)
        pages = iter_pages(self.transport, dataset_id=watch.dataset_id, from_s=first, to_s=last)
        is_sidecar = self.config.metadata.is_sidecar
        names = (row.file_name for page in itertools.islice(pages, _MOST_PAGES) for row in page.rows)
        return [
            name
            for name in dict.fromkeys(names)
            if is_input(name, own_output=self.own_output, is_sidecar=is_sidecar)
        ]
