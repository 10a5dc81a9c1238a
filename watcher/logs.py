"""Structured logs: one event a line, secrets taken out of everything that is printed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from watcher.domain.redaction import redact
from watcher.domain.visible import make_visible

LogFormat = Literal["auto", "json", "console"]

_SECRET_NAMES = ("token", "password", "secret", "authorization", "signature")


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger; `name` becomes the field `component`."""
    logger: FilteringBoundLogger = structlog.get_logger(component=name)
    return logger


def describe_error(error: BaseException) -> dict[str, str]:
    """The fields that a log event about an error bears: its text, its class, and the request that failed."""
    facts = {"error": str(error), "kind": type(error).__name__}
    request_id = getattr(error, "request_id", None)
    return facts if request_id is None else {**facts, "request_id": request_id}


def configure_logging(
    *, log_format: LogFormat = "auto", level: str = "INFO", stream: TextIO | None = None
) -> None:
    """Sets up structlog and routes the standard library's loggers through it. Called once by the commands.

    Args:
        log_format: `json` for machines, `console` for people, `auto` for whichever fits the stream.
        level: lowest level that is printed.
        stream: where to; standard error if absent.
    """
    out = stream or sys.stderr
    as_json = log_format == "json" or (log_format == "auto" and not out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    final: list[Processor] = (
        [structlog.processors.format_exc_info, redact_event, structlog.processors.JSONRenderer()]
        if as_json
        else [
            structlog.processors.format_exc_info,
            redact_event,
            _show_control_characters,
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _name_foreign_logger],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))


def redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Takes secrets out of every text of an event, nested ones included."""
    return {key: _redact_field(key, value) for key, value in event.items()}


def _redact_field(key: object, value: object) -> object:
    """The value, hidden whole under a name that promises a secret."""
    if isinstance(value, str) and str(key).lower().endswith(_SECRET_NAMES):
        return "***"
    return _redact_value(value)


def _redact_value(value: object) -> object:
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {redact(str(key)): _redact_field(key, inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redact_value(inner) for inner in value]
    if isinstance(value, BaseException):
        return redact(f"{type(value).__name__}: {value}")
    return redact(repr(value))  # what the renderers would make of it


def _show_control_characters(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """For a terminal, which would obey those in the name of a file."""
    return {key: make_visible(value) if isinstance(value, str) else value for key, value in event.items()}


def _name_foreign_logger(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        event["component"] = record.name
    return event
