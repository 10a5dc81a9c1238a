"""The whole life of one file, for `watcher why`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from watcher.database.engine import Database
from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.models import BatchState, Run, Sample, SampleState, Step, Watch
from watcher.store import batches, control, deliveries, lacks, novelty, picks, polls, runs, samples, watches


class LifeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a file; `at_ms` is unix milliseconds."""

    at_ms: int
    what: str
    facts: dict[str, Any]


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """A file from its listing to its delivery, in the order of time.

    Attributes:
        explanation: one sentence that answers "why is it where it is?".
    """

    watch: str
    file_name: str
    state: str
    explanation: str
    remote_id: str | None
    attempts: int
    events: list[LifeEvent]


def load_lives(
    database: Database, *, file_name: str, watch: str | None = None, whole: bool = False
) -> list[Life]:
    """The lives of all samples of that name, or whose name ends with `/<file_name>`; at most 20.

    `whole` takes the name as a whole, which an index answers; else an unknown name costs a walk through the ledger.
    """
    with database.read() as session:
        return [
            _load_life(session, watch_name, sample)
            for watch_name, sample in samples.find_samples(
                session, file_name=file_name, watch=watch, whole=whole
            )
        ]


def _load_life(session: Any, watch_name: str, sample: Sample) -> Life:
    events = [_discovery(session, sample)]
    explanation = _EXPLANATIONS[sample.state]
    if sample.reason:
        explanation = f"{explanation}: {sample.reason}"
    watch = watches.load_watch_by_id(session, watch_id=sample.watch_id)
    events += _rewinds(session, watch, sample)
    if sample.batch_id is not None:
        batch = batches.load_batch(session, batch_id=sample.batch_id)
        if batch.state is BatchState.DEAD and sample.state is SampleState.PROCESSING:
            explanation = f"its batch {batch.key} gave up: see the step that is dead"
        events.append(
            LifeEvent(
                at_ms=batch.created_ms,
                what="put into a batch",
                facts={"batch": batch.key, "samples": batch.n_samples},
            )
        )
        for run in runs.load_batch_runs(session, batch_id=batch.id):
            if run.shard and not _is_within(run, sample.id):
                continue
            facts: dict[str, Any] = {"state": run.state.value, "attempts": run.attempt, **run.result}
            if run.error:
                facts["error"] = run.error
            events.append(
                LifeEvent(
                    at_ms=run.finished_ms or run.started_ms or run.created_ms,
                    what=f"step {run.step.value}" + (f", shard {run.shard}" if run.shard else ""),
                    facts=facts,
                )
            )
        events += _measurements(session, sample, batch_id=batch.id)
    events += _picks(session, sample)
    if sample.overwritten_ms is not None:
        events.append(
            LifeEvent(
                at_ms=sample.overwritten_ms, what="found written again", facts={"times": sample.n_overwritten}
            )
        )
    if watch.paused_ms is not None and sample.state in {SampleState.WAITING, SampleState.PROCESSING}:
        since = _format_s(watch.paused_ms // 1000)
        explanation = f"{explanation}; the watch is paused since {since}: `watcher resume {watch.name}`"
    if sample.state in {SampleState.QUARANTINED, SampleState.GONE} or sample.attempts:
        events.append(
            LifeEvent(at_ms=sample.changed_ms, what=sample.state.value, facts={"reason": sample.reason})
        )
    return Life(
        watch=watch_name,
        file_name=sample.file_name,
        state=sample.state.value,
        explanation=explanation,
        remote_id=sample.remote_id,
        attempts=sample.attempts,
        events=sorted(events, key=lambda event: event.at_ms),
    )


def _rewinds(session: Any, watch: Watch, sample: Sample) -> list[LifeEvent]:
    """Each time the mark was set back behind the file, which is then listed again and known."""
    found = control.load_rewinds(
        session, watch=watch, since_ms=sample.discovered_ms, before_s=sample.modified_s
    )[:_MOST_REWINDS]
    return [
        LifeEvent(
            at_ms=entry.at_ms,
            what="mark set back before it, so it is listed again and not done twice",
            facts={"to": _format_s(entry.facts["to_s"]), "by": entry.actor},
        )
        for entry in found
    ]


def _measurements(session: Any, sample: Sample, *, batch_id: int) -> list[LifeEvent]:
    """What was seen of the picture itself: darkness, and the distance to everything known before."""
    events = []
    dark = novelty.load_dark_sample(session, sample_id=sample.id)
    if dark is not None:
        brightness, contrast, seen_ms = dark
        facts: dict[str, Any] = {"brightness": round(brightness, 4), "contrast": round(contrast, 4)}
        events.append(LifeEvent(at_ms=seen_ms, what="seen to be dark", facts=facts))
    events += [
        LifeEvent(
            at_ms=noted.noted_ms, what=f"without a usable {noted.lack.value}", facts={"reason": noted.reason}
        )
        for noted in lacks.load_lacks(session, sample_id=sample.id)
    ]
    measured = novelty.load_sample_novelty(session, sample_id=sample.id)
    summary = novelty.load_batch_novelty(session, batch_id=batch_id)
    if measured is not None and summary is not None:
        facts = {
            "distance": None if measured.distance is None else round(measured.distance, 6),
            "nearest": measured.nearest,
            "near_duplicate": measured.is_near_duplicate,
            "repeat": measured.is_repeat,
            "novelty_of_batch": None if summary.ratio is None else round(summary.ratio, 3),
        }
        events.append(LifeEvent(at_ms=summary.measured_ms, what="compared with what was known", facts=facts))
    return events


def _picks(session: Any, sample: Sample) -> list[LifeEvent]:
    """Each time it was picked, in whatever batch, and how those picks were handed over."""
    events: list[LifeEvent] = []
    task_ids = deliveries.load_task_ids(session, sample_id=sample.id)
    for pick in picks.load_picks_of_sample(session, sample_id=sample.id)[-_MOST_PICKS:]:
        batch = batches.load_batch(session, batch_id=pick.batch_id)
        sampled_ms = [
            run.finished_ms or run.started_ms or run.created_ms
            for run in runs.load_batch_runs(session, batch_id=batch.id)
            if run.step is Step.SAMPLING
        ]
        facts = {"rank": pick.rank, "tag": batch.sampling_tag_name, **pick.reason}
        events.append(LifeEvent(at_ms=max(sampled_ms, default=batch.created_ms), what="picked", facts=facts))
        events += [
            _delivery(delivery, task_ids.get(delivery.id))
            for delivery in deliveries.load_deliveries(session, batch_id=batch.id)
        ]
    return events


def _is_within(run: Run, sample_id: int) -> bool:
    return (run.first_sample_id or 0) <= sample_id <= (run.last_sample_id or sample_id)


def _delivery(delivery: Delivery, task_id: str | None) -> LifeEvent:
    """A hand-over as it stands: confirmed, under way with its last error, or given up."""
    facts: dict[str, Any] = {
        "sink": delivery.sink,
        "kind": delivery.kind.value,
        "state": delivery.state.value,
    }
    facts |= {"location": delivery.location, "task": task_id, "error": delivery.error}
    if delivery.state is not DeliveryState.DONE:
        facts["attempts"] = delivery.attempt
    if delivery.state is DeliveryState.READY:
        facts["next_attempt"] = _format_s(delivery.available_ms // 1000)
    return LifeEvent(
        at_ms=delivery.finished_ms or delivery.started_ms or delivery.created_ms,
        what=_DELIVERY_TEXTS[delivery.state],
        facts={name: value for name, value in facts.items() if value is not None},
    )


def _discovery(session: Any, sample: Sample) -> LifeEvent:
    facts: dict[str, Any] = {"via": sample.via.value}
    poll = polls.load_poll(session, poll_id=sample.poll_id)
    if poll is not None:
        start_s = poll.from_s
        end_s = poll.to_s
        if sample.via.value == "overlap" and poll.overlap_from_s is not None:
            start_s, end_s = poll.overlap_from_s, poll.from_s - 1
        facts |= {"window_from": _format_s(start_s), "window_to": _format_s(end_s), "poll": poll.id}
    if sample.modified_s is not None:
        facts["modified"] = _format_s(sample.modified_s)
    if sample.size_bytes is not None:
        facts["bytes"] = sample.size_bytes
    return LifeEvent(at_ms=sample.discovered_ms, what="listed for the first time", facts=facts)


_MOST_REWINDS = 20
_MOST_PICKS = 20
_DELIVERY_TEXTS = {
    DeliveryState.READY: "waits for delivery",
    DeliveryState.RUNNING: "is being delivered",
    DeliveryState.DONE: "delivered",
    DeliveryState.DEAD: "not delivered",
    DeliveryState.DROPPED: "not delivered, and dropped by a person",
}
_EXPLANATIONS = {
    SampleState.WAITING: "it is in the ledger and waits for the next batch",
    SampleState.PROCESSING: "its batch is under way",
    SampleState.DONE: "it went through all steps",
    SampleState.QUARANTINED: "it cannot be processed",
    SampleState.GONE: "it vanished from the datasource before it could be read",
}


def _format_s(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
