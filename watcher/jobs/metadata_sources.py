"""Where custom metadata comes from: a file beside the object, a mapping in the settings, or a program."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from typing import Any

import msgspec

from watcher.domain.errors import (
    ApiException,
    CommandError,
    ReadUrlRefusedError,
    SampleError,
    SampleGoneError,
)
from watcher.domain.models import Sample
from watcher.domain.step_rules import MetadataSource
from watcher.domain.templates import compute_sidecar_name, fill_template
from watcher.jobs.context import RunContext
from watcher.jobs.read_urls import renew_sidecar_urls
from watcher.line_process import LineProcess
from watcher.store import sidecars

# Metadata, or the reason why there is none.
Found = dict[str, Any] | str

_MOST_COMMAND_ATTEMPTS = 3
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def fetch_metadata(context: RunContext, page: Sequence[Sample], pool: Executor) -> dict[str, Found]:
    """What the watch's source says of the samples, by file name; of some perhaps nothing.

    Raises:
        ConfigError: the command cannot be started.
        CommandError: the command failed, and may do better in another attempt.
        WatcherError: the server or the store failed.
    """
    source = context.config.metadata.source
    if source is MetadataSource.SIDECAR:
        return _read_sidecars(context, page, pool)
    if source is MetadataSource.COMMAND:
        return _ask_command(context, page)
    return {sample.file_name: _fill(context, sample) for sample in page}


def _fill(context: RunContext, sample: Sample) -> Found:
    rules = context.config.metadata
    filled = fill_template(
        rules.values,
        watch=context.watch.name,
        file_name=sample.file_name,
        arrived_ms=sample.discovered_ms,
        pattern=rules.pattern,
    )
    return "the pattern of the metadata does not fit its file name" if filled is None else filled


def _read_sidecars(context: RunContext, page: Sequence[Sample], pool: Executor) -> dict[str, Found]:
    pattern = context.config.metadata.sidecar
    names = {sample.file_name: compute_sidecar_name(pattern, sample.file_name) for sample in page}
    with context.database.read() as session:
        urls = sidecars.load_read_urls(
            session, watch_id=context.watch.id, file_names=sorted(set(names.values()))
        )

    def read(name: str) -> Found | None:
        """None when the read URL no longer serves."""
        context.check()
        if name not in urls:
            return f"its sidecar {name} was not listed when the batch came to it"
        try:
            body = context.transport.read_url_bytes(
                urls[name], max_bytes=context.config.metadata.max_bytes
            ).body
        except (ReadUrlRefusedError, SampleGoneError):
            return None
        except SampleError as error:
            return f"its sidecar {name} is {error}"
        except ApiException as error:
            if error.retryable:
                raise
            return f"its sidecar {name} cannot be read: {error}"
        return _decode(body, name)

    found = dict(zip(names.values(), pool.map(read, names.values()), strict=True))
    refused = sorted(name for name, value in found.items() if value is None)
    if refused:
        urls = renew_sidecar_urls(context, beside=page, file_names=refused)
        found.update(zip(refused, pool.map(read, refused), strict=True))
    return {
        file_name: value
        if (value := found[name]) is not None
        else f"the read URL of its sidecar {name} is refused, a fresh one too"
        for file_name, name in names.items()
    }


def _decode(body: bytes, name: str) -> Found:
    try:
        value = msgspec.json.decode(body.removeprefix(_BYTE_ORDER_MARK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"its sidecar {name} is no JSON: {error}"
    return value if isinstance(value, dict) else f"its sidecar {name} holds no JSON object"


def _ask_command(context: RunContext, page: Sequence[Sample]) -> dict[str, Found]:
    """Runs the command once for the page: names on its standard input, metadata on its standard output."""
    rules = context.config.metadata
    what = f"the metadata command {rules.command[0]!r}"
    lines = [
        msgspec.json.encode(
            {
                "file_name": sample.file_name,
                "watch": context.watch.name,
                "arrived": datetime.fromtimestamp(sample.discovered_ms / 1000, UTC).isoformat(),
            }
        )
        for sample in page
    ]
    process = LineProcess(rules.command, what=what, clock=context.parts.clock)
    left_out = f"{what} printed no answer for it"
    try:
        answers = process.exchange(
            lines, n_answers=None, time_limit_s=rules.time_limit_s, check=context.check
        )
    except CommandError as error:
        if context.run.attempt < _MOST_COMMAND_ATTEMPTS:
            raise
        answers, left_out = error.answers, f"{left_out}: {error}"
    found = {sample.file_name: left_out for sample in page}
    read: dict[str, Found] = {}
    n_rubbish = 0
    for line in answers:
        answer = _read_answer(line)
        if answer is None or answer[0] not in found:
            n_rubbish += 1
        else:
            read[answer[0]] = answer[1]
    if n_rubbish:
        rubbish = f" ({n_rubbish} of its lines answer nothing that was asked)"
        return {name: read.get(name, reason + rubbish) for name, reason in found.items()}
    return {**found, **read}


def _read_answer(line: bytes) -> tuple[str, Found] | None:
    try:
        answer = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    name = answer.get("file_name") if isinstance(answer, dict) else None
    if not isinstance(name, str):
        return None
    if isinstance(answer.get("error"), str):
        return name, f"the metadata command refused it: {answer['error']}"
    metadata = answer.get("metadata")
    return name, metadata if isinstance(metadata, dict) else "the metadata command answered no JSON object"
