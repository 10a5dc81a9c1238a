"""Scores of samples: from a file, from the samples' metadata, or from a command; each a number from 0 to 1.

A source that fails as a whole is an error of the run. A score that cannot be used is a matter of its sample alone.
"""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import subprocess
from collections.abc import Collection, Generator, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from watcher.domain.errors import ScoresError
from watcher.domain.models import Sample
from watcher.domain.redaction import redact
from watcher.domain.sampling_rules import LEAST_TO_BLAME_THE_SOURCE
from watcher.jobs.context import RunContext
from watcher.lightly import samples as remote_samples
from watcher.lightly.parallel import open_pool
from watcher.store import samples
from watcher.work_folders import open_work_folder

_N_NAMED: Final = 3
# Who writes a file or answers a command may be about to give the rest: a quarter of an hour at most.
_MOST_WAITS_FOR_THE_REST: Final = 9
_LONGEST_TOLD: Final = 10**15
_POLL_S: Final = 0.1
_MOST_BYTES_A_NAME: Final = 4096
_CSV_COLUMNS: Final = {"file_name", "score"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores of samples by file name.

    Attributes:
        values: from 0 to 1; with a default, of every sample asked for.
        unusable: why the source has no score of a sample that can be used; with a default only of those of which it
            has a bad one, not of those it does not know.
    """

    values: dict[str, float]
    unusable: dict[str, str]


def load_scores(context: RunContext, names: Collection[str]) -> Scores:
    """The scores of samples of the batch, from wherever the watch takes them.

    Raises:
        ScoresError: the source cannot be read, has not one usable score of at least five samples, or, in the first
            attempts, lacks some that may still come.
    """
    default = context.config.sampling.scores.default
    values: dict[str, float] = {}
    unusable: dict[str, str] = {}
    # Closed here, whatever happens: see `lightly/parallel.py`.
    with contextlib.ExitStack() as stack:
        source, rows = _open_rows(context, names, stack)
        for name, value in rows:
            if name in names:
                _keep(_read_score(value), name, values, unusable)
    missing = sorted(set(names) - values.keys() - unusable.keys())
    if default is not None:
        values.update(dict.fromkeys((*missing, *unusable), default))
        return Scores(values=values, unusable=unusable)
    if missing and _may_still_come(context):
        raise ScoresError(
            f"{source} has no score for {len(missing)} of {len(names)} samples of {context.batch.key}: "
            f"{', '.join(map(repr, missing[:_N_NAMED]))}{' and others' if len(missing) > _N_NAMED else ''}; add them, "
            "or set sampling.scores.default"
        )
    unusable.update((name, "there is no score for it") for name in missing)
    if not values and len(names) >= LEAST_TO_BLAME_THE_SOURCE:
        name, reason = next(iter(unusable.items()))
        raise ScoresError(
            f"{source} has no score that can be used for any of the {len(names)} samples of {context.batch.key}; of "
            f"{name!r}, for one: {reason}"
        )
    return Scores(values=values, unusable={name: f"{source}: {reason}" for name, reason in unusable.items()})


def _may_still_come(context: RunContext) -> bool:
    rules = context.config.sampling.scores
    return rules.metadata_key is None and context.run.attempt <= _MOST_WAITS_FOR_THE_REST


def _keep(read: float | str, name: str, values: dict[str, float], unusable: dict[str, str]) -> None:
    """Notes what was read of a name; what comes last counts."""
    if isinstance(read, str):
        values.pop(name, None)
        unusable[name] = read
    else:
        unusable.pop(name, None)
        values[name] = read


def check_score_file(path: Path) -> None:
    """Reads the beginning of a file of scores.

    Raises:
        ScoresError: it cannot be read, or is not as described.
    """
    with contextlib.closing(_iter_file(path)) as rows:
        for name, value in rows:
            score = _read_score(value)
            if isinstance(score, str):
                raise ScoresError(f"the file {path}: of {name!r}: {score}")
            return


def _open_rows(
    context: RunContext, names: Collection[str], stack: contextlib.ExitStack
) -> tuple[str, Iterator[tuple[str, object]]]:
    """What the source is called, and its rows; what they need is closed with the stack."""
    rules = context.config.sampling.scores
    rows: Generator[tuple[str, object], None, None]
    if rules.file is not None:
        source, rows = f"the file {rules.file}", _iter_file(Path(rules.file))
    elif rules.command:
        source, rows = f"the command {rules.command[0]}", _iter_command(context, sorted(names))
    else:
        pool = stack.enter_context(open_pool(context.config.upload.workers, name="scores"))
        source, rows = f"the metadata {rules.metadata_key}", _iter_metadata(context, names, pool)
    return source, stack.enter_context(contextlib.closing(rows))


def _read_score(value: object) -> float | str:
    """The score, or why the value is none."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    # Not a number (NaN) is neither at least 0 nor at most 1.
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    is_long = isinstance(value, int) and not -_LONGEST_TOLD < value < _LONGEST_TOLD
    told = "a huge number" if is_long else repr(value)[:60]
    return f"its score is {told}, which is no number from 0 to 1"


def _iter_file(path: Path) -> Generator[tuple[str, object], None, None]:
    """Rows of a CSV with the columns `file_name` and `score`, or lines of JSON with these keys."""
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = csv.DictReader(file)
                if not set(rows.fieldnames or ()) >= _CSV_COLUMNS:
                    raise ScoresError(
                        f"the file {path} needs the columns file_name and score in its first line"
                    )
                for row in rows:
                    yield row["file_name"], row["score"]
        else:
            with path.open("rb") as lines:
                yield from _iter_json_lines(lines, source=f"the file {path}")
    except OSError as error:
        raise ScoresError(f"the file {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ScoresError(f"the file {path} is no CSV in UTF-8: {error}") from error


def _iter_json_lines(lines: Any, *, source: str) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str) or "score" not in row:
            raise ScoresError(
                f'{source}: line {number} is not of the form {{"file_name": "a.jpg", "score": 0.5}}'
            )
        yield row["file_name"], row["score"]


def _iter_metadata(
    context: RunContext, names: Collection[str], pool: Executor
) -> Generator[tuple[str, object], None, None]:
    """The value under the key in the custom metadata of each sample on the server."""
    keys = (context.config.sampling.scores.metadata_key or "").split(".")

    def fetch(sample: Sample) -> tuple[str, object] | None:
        assert sample.remote_id is not None
        value: object = remote_samples.fetch_sample(
            context.transport, dataset_id=context.watch.dataset_id, sample_id=sample.remote_id
        ).custom_meta_data
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return None if value is None else (sample.file_name, value)

    after = 0
    while True:
        with context.database.read() as session:
            page = samples.load_batch_page(
                session, batch_id=context.batch.id, after_id=after, limit=16 * context.config.upload.workers
            )
        if not page:
            return
        wanted = [sample for sample in page if sample.remote_id and sample.file_name in names]
        yield from (row for row in pool.map(fetch, wanted) if row is not None)
        context.check()
        after = page[-1].id


def _iter_command(context: RunContext, names: Sequence[str]) -> Generator[tuple[str, object], None, None]:
    """What the command prints: it gets the names on its input, a JSON string a line, and prints lines of JSON."""
    rules = context.config.sampling.scores
    source = f"the command {rules.command[0]}"
    with open_work_folder(context.parts.work_dir, prefix="scores-") as folder:
        given, printed, complaints = (folder / name for name in ("names", "scores", "errors"))
        with given.open("wb") as file:
            file.writelines(msgspec.json.encode(name) + b"\n" for name in names)
        code = _run(context, given, printed, complaints, most_bytes=_MOST_BYTES_A_NAME * (len(names) + 256))
        if code != 0:
            said = complaints.read_bytes()[-500:].decode(errors="replace").strip()
            raise ScoresError(redact(f"{source} ended with {code}: {said or 'it said nothing'}"))
        with printed.open("rb") as lines:
            yield from _iter_json_lines(lines, source=source)


def _run(context: RunContext, given: Path, printed: Path, complaints: Path, *, most_bytes: int) -> int:
    rules, clock = context.config.sampling.scores, context.parts.clock
    source = f"the command {rules.command[0]}"
    with given.open("rb") as stdin, printed.open("wb") as stdout, complaints.open("wb") as stderr:
        try:
            process = subprocess.Popen(  # noqa: S603 - the command is the operator's own setting
                rules.command, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
            )
        except OSError as error:
            raise ScoresError(f"{source} cannot be started: {error.strerror}") from error
        end_s = clock.monotonic_s() + rules.time_limit_s
        try:
            while True:
                try:
                    return process.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    context.check()
                if clock.monotonic_s() > end_s:
                    raise ScoresError(f"{source} took longer than {rules.time_limit_s:g} seconds")
                if printed.stat().st_size > most_bytes or complaints.stat().st_size > most_bytes:
                    raise ScoresError(f"{source} printed more than {most_bytes} bytes")
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends the command and what it started; nothing if all have ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
