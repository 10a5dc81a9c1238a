"""What a sink is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from watcher.domain.clock import Clock
from watcher.domain.delivery import ImageReference


class PickLine(msgspec.Struct, frozen=True, kw_only=True):
    """A picked sample as receivers see it.

    Attributes:
        read_url: fresh when it was handed over; it expires. Empty for an object that vanished since.
        tag: tag of the picks on the server.
        rank: from 1, most worth labelling first.
    """

    file_name: str
    read_url: str
    watch: str
    dataset_id: str
    tag: str
    rank: int
    batch: str
    reason: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PickedSample:
    """A line, and which sample it is of."""

    sample_id: int
    line: PickLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """One attempt of one delivery.

    Attributes:
        id: natural key for the receiver; the same at every attempt.
        picks_digest: `compute_picks_digest` of the picks.
        progress: what an earlier attempt left with `save_progress`.
        source: path of the datasource on the server, such as `s3://bucket/incoming`; None if it told none.
        iter_chunks: picks by rank in pieces of a size, behind a rank; read URLs are fetched as they are asked for.
        save_progress: makes something known to the next attempt.
        record_tasks: keeps the receiver's own ids as (sample id: task id).
        check: raises when the attempt must end.
    """

    id: str
    watch: str
    dataset_id: str
    batch_key: str
    tag: str
    n_picks: int
    picks_digest: str
    progress: Mapping[str, Any]
    source: str | None
    iter_chunks: Callable[[int, int], Iterator[list[PickedSample]]]
    save_progress: Callable[[Mapping[str, Any]], None]
    record_tasks: Callable[[Mapping[int, str]], None]
    check: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The receiver's word that it has everything.

    Attributes:
        location: where it lies, without secrets.
        facts: for the log.
    """

    location: str
    facts: Mapping[str, object]


class Sink(Protocol):
    """A receiver. Delivering the same hand-over again does no harm.

    Attributes:
        reference: which address of an image its lines hold as `read_url`.
    """

    reference: ImageReference

    def deliver(self, handover: Handover) -> Receipt:
        """Hands everything over and returns once the receiver confirmed.

        Raises:
            DeliveryRefusedError: it never will.
            WatcherError: it failed, and is tried again.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkParts:
    """What sinks are built with.

    Attributes:
        data_dir: where relative folders begin.
        work_dir: for temporary files.
        connect_timeout_s: longest wait for a connection.
        ca_certs: file of certificate authorities to trust besides the usual ones, for receivers that name none.
    """

    data_dir: Path
    work_dir: Path
    clock: Clock
    connect_timeout_s: float = 10.0
    ca_certs: Path | None = None
