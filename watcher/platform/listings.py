"""Listings of datasources: snapshots in order of time, and cursors that outlive them.

A listing reads the datasource once, into a snapshot sorted by (second, name): in memory if it is small, else in a
temporary SQLite file, so memory stays flat. A cursor carries the window, the last row that was handed out, and the
name of the snapshot. If the snapshot is gone (restart, another replica, long pause), the datasource is read again
and the listing goes on behind that row; so an object that stays unchanged is handed out exactly once, and one that
appears meanwhile is either still handed out or belongs to a later window.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import itertools
import secrets
import sqlite3
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from watcher.domain.clock import Clock
from watcher.platform.faults import invalid, unavailable
from watcher.platform.secrets import Keys
from watcher.work_folders import clear_abandoned, open_work_folder

_T = TypeVar("_T")
Row = tuple[int, str]
FIRST: Row = (-1, "")
MAX_SECOND = 2**53
_MAX_SNAPSHOTS = 64
_MAX_BYTES = 2 * 1024**3
_IDLE_S = 900.0
_SWEEP_S = 60.0
_IN_MEMORY_ROWS = 4000
_IN_MEMORY_BYTES = 1024 * 1024
# A tuple, a number and the head of a text.
_ROW_BYTES = 130
_SIGNATURE_BYTES = 16
_RANGE = "FROM o WHERE (second, name) > (?, ?) AND (second, name) <= (?, ?)"
_PAGE = (
    "SELECT group_concat(name, char(0)), max(second)"  # noqa: S608 - made of constants
    f" FROM (SELECT second, name {_RANGE} ORDER BY second, name LIMIT ?)"
)
_MORE = f"SELECT EXISTS (SELECT 1 {_RANGE})"
_FOREIGN = "the cursor was not made by this server: start the listing again without it"


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """The place in a listing.

    Attributes:
        dataset_id: of which dataset.
        source: digest of the datasource's settings.
        from_s: begin of the window.
        to_s: end of the window.
        after: the last row handed out.
        until: the last row of this shard; None if there is no end but that of the window.
        snapshot: name of the snapshot.
        relevant: name of the file that restricts the listing, or empty.
        prefix: what listed names begin with.
        suffix: what listed names end with, letter case aside.
    """

    dataset_id: str
    source: str
    from_s: int
    to_s: int
    after: Row
    until: Row | None
    snapshot: str
    relevant: str
    prefix: str = ""
    suffix: str = ""


class Page(NamedTuple):
    """A piece of a listing.

    Attributes:
        names: the objects.
        last: the row of the last one; where the piece began if there is none.
        more: whether anything follows.
    """

    names: list[str]
    last: Row
    more: bool


def encode_cursor(cursor: Cursor, keys: Keys) -> str:
    """The signed form, made of letters, digits, `-` and `_`."""
    payload = msgspec.msgpack.encode(cursor)
    return base64.urlsafe_b64encode(keys.sign_cursor(payload) + payload).rstrip(b"=").decode("ascii")


def decode_cursor(text: str, keys: Keys) -> Cursor:
    """Reads the signed form.

    Raises:
        Fault: it was not made by this installation.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        canonical = base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") == text
        signature, payload = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        genuine = canonical and keys.is_cursor_signature(payload, signature)
        cursor = msgspec.msgpack.decode(payload, type=Cursor) if genuine else None
    except (ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise invalid(_FOREIGN) from error
    if cursor is None:
        raise invalid(_FOREIGN)
    return cursor


class Snapshot:
    """The rows of one reading, sorted by (second, name).

    Attributes:
        owner: id of the user who asked for it.
        n_bytes: what it takes, of memory or disk.
        used_s: when it was last read, on the monotonic clock.
    """

    def __init__(
        self,
        rows: list[Row] | None,
        connection: sqlite3.Connection | None,
        path: Path | None,
        *,
        owner: str,
        n_bytes: int,
    ) -> None:
        self.owner = owner
        self.n_bytes = n_bytes
        self._rows = rows
        self._connection = connection
        self._path = path
        self._lock = threading.Lock()
        self.used_s = 0.0

    def read(self, *, after: Row, until: Row | None, limit: int) -> Page:
        """The next names behind `after`, at most `limit`, up to and including `until`."""
        if self._rows is not None:
            start = _bisect(self._rows, after)
            rows = self._rows[start : start + limit]
            if until is not None:
                rows = [row for row in rows if row <= until]
            end = start + len(rows)
            following = self._rows[end : end + 1]
            more = bool(following) and (until is None or following[0] <= until)
            return Page([row[1] for row in rows], rows[-1] if rows else after, more)
        stop = until or (MAX_SECOND + 1, "")
        with self._lock:
            if self._connection is None:
                raise LookupError("the snapshot was closed")
            joined, second = self._connection.execute(_PAGE, (*after, *stop, limit)).fetchone()
            if joined is None:
                return Page([], after, False)
            # No name holds NUL, and one joined text is fetched far faster than a row for each.
            names = joined.split("\0")
            last = (second, names[-1])
            more = self._connection.execute(_MORE, (*last, *stop)).fetchone()[0]
        return Page(names, last, bool(more))

    def split(self, n_shards: int) -> list[tuple[Row, Row | None]]:
        """Cuts the rows into at most `n_shards` ranges `(after, until)` that hold every row once."""
        with self._lock:
            total = self._count()
            cuts = sorted({total * shard // n_shards for shard in range(1, n_shards)} - {0, total})
            bounds = [self._at(cut - 1) for cut in cuts]
        starts: list[Row] = [FIRST, *bounds]
        ends: list[Row | None] = [*bounds, None]
        return list(zip(starts, ends, strict=True))

    def _count(self) -> int:
        if self._rows is not None:
            return len(self._rows)
        if self._connection is None:
            return 0
        count: int = self._connection.execute("SELECT count(*) FROM o").fetchone()[0]
        return count

    def _at(self, position: int) -> Row:
        if self._rows is not None:
            return self._rows[position]
        if self._connection is None:
            raise LookupError("the snapshot was closed")
        row: Row = self._connection.execute(
            "SELECT second, name FROM o ORDER BY second, name LIMIT 1 OFFSET ?", (position,)
        ).fetchone()
        return row

    def close(self) -> None:
        """Forgets the rows and removes the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if self._path is not None:
                self._path.unlink(missing_ok=True)


def _bisect(rows: list[Row], after: Row) -> int:
    low, high = 0, len(rows)
    while low < high:
        middle = (low + high) // 2
        if rows[middle] <= after:
            low = middle + 1
        else:
            high = middle
    return low


class Listings:
    """The snapshots of this process: at most 64 and two gibibytes, each forgotten after a quarter of an hour unused.

    Beyond that, whoever holds the most loses what they left unused for longest, so nobody's listings are pushed out by
    one who asks for many. The newest stays, however large. Where one is gone, the datasource is read again.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Touches no disk yet.

        Args:
            folder: the work folder of all processes over the same data; each makes one of its own below when needed.
            clock: tells what is unused.
        """
        self._work_dir = folder
        self._clock = clock
        self._held = contextlib.ExitStack()
        self._folder: Path | None = None
        self._snapshots: OrderedDict[str, Snapshot] = OrderedDict()
        self._lock = threading.Lock()
        self._sweeper: threading.Timer | None = None

    def clear_abandoned(self) -> None:
        """Removes what killed processes left, and nothing of a living one.

        Raises:
            OSError: the work folder cannot be read.
        """
        if self._work_dir.is_dir():
            clear_abandoned(self._work_dir)

    def find(self, name: str) -> Snapshot | None:
        """The snapshot, if this process still has it."""
        with self._lock:
            snapshot = self._snapshots.get(name)
            if snapshot is not None:
                snapshot.used_s = self._clock.monotonic_s()
                self._snapshots.move_to_end(name)
            return snapshot

    def take(
        self, rows: Callable[[], Iterator[Row]], *, owner: str, use: Callable[[Snapshot], _T]
    ) -> tuple[str, _T]:
        """Reads the datasource into a new snapshot.

        Args:
            rows: reads it.
            owner: id of the user who asked.
            use: what is done with the snapshot first, before those of others can push it out.

        Returns:
            Its name, and what `use` gave.

        Raises:
            Fault: 503, the disk is full or failing.
        """
        name = secrets.token_hex(6)
        try:
            snapshot = self._build(name, rows(), owner)
            try:
                used = use(snapshot)
            except BaseException:
                snapshot.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise unavailable(
                f"the listing could not be kept on the server's disk ({error}): free space there"
            ) from error
        snapshot.used_s = self._clock.monotonic_s()
        with self._lock:
            self._snapshots[name] = snapshot
            gone = [*self._pop_unused(), *self._pop_surplus()]
            self._plan_sweep()
        for old in gone:
            old.close()
        return name, used

    def _pop_unused(self) -> list[Snapshot]:
        limit_s = self._clock.monotonic_s() - _IDLE_S
        unused = [name for name, snapshot in self._snapshots.items() if snapshot.used_s < limit_s]
        return [self._snapshots.pop(name) for name in unused]

    def _pop_surplus(self) -> list[Snapshot]:
        gone = []
        while len(self._snapshots) > 1:
            too_large = sum(each.n_bytes for each in self._snapshots.values()) > _MAX_BYTES
            if not too_large and len(self._snapshots) <= _MAX_SNAPSHOTS:
                break
            held: Counter[str] = Counter()
            for snapshot in self._snapshots.values():
                held[snapshot.owner] += snapshot.n_bytes if too_large else 1
            *others, _newest = self._snapshots.items()
            # The first of those who hold as much as any: they are in the order of their last use.
            name, _ = max(others, key=lambda item: held[item[1].owner])
            gone.append(self._snapshots.pop(name))
        return gone

    def _plan_sweep(self) -> None:
        if self._sweeper is None and self._snapshots:
            self._sweeper = threading.Timer(_SWEEP_S, self._sweep)
            self._sweeper.daemon = True
            self._sweeper.start()

    def _sweep(self) -> None:
        with self._lock:
            self._sweeper = None
            gone = self._pop_unused()
            self._plan_sweep()
        for old in gone:
            old.close()

    def _find_folder(self) -> Path:
        with self._lock:
            if self._folder is None or not self._folder.exists():
                self._work_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._folder = self._held.enter_context(open_work_folder(self._work_dir, prefix="listing-"))
            return self._folder

    def _build(self, name: str, rows: Iterator[Row], owner: str) -> Snapshot:
        first = list(itertools.islice(rows, _IN_MEMORY_ROWS + 1))
        n_bytes = sum(_ROW_BYTES + len(row[1]) for row in first)
        if len(first) <= _IN_MEMORY_ROWS and n_bytes <= _IN_MEMORY_BYTES:
            return Snapshot(sorted(first), None, None, owner=owner, n_bytes=n_bytes)
        path = self._find_folder() / f"{name}.sqlite"
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -8000"):
                connection.execute(f"PRAGMA {pragma}")
            connection.execute("CREATE TABLE o (second INTEGER NOT NULL, name TEXT NOT NULL)")
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO o VALUES (?, ?)", itertools.chain(first, rows))
            connection.execute("CREATE INDEX k ON o (second, name)")
            connection.execute("COMMIT")
            n_bytes = path.stat().st_size
        except BaseException:
            connection.close()
            path.unlink(missing_ok=True)
            raise
        return Snapshot(None, connection, path, owner=owner, n_bytes=n_bytes)

    def close(self) -> None:
        """Forgets all snapshots, and removes the folder."""
        with self._lock:
            if self._sweeper is not None:
                self._sweeper.cancel()
                self._sweeper = None
            snapshots = list(self._snapshots.values())
            self._snapshots.clear()
            self._folder = None
        for snapshot in snapshots:
            snapshot.close()
        self._held.close()
