"""One event a line, and no secret in any of them, whoever logged it."""

from __future__ import annotations

import io
import json
import logging
import warnings

import pytest
import structlog

from tests.builders import kept_logging
from watcher.logs import configure_logging, get_logger

SECRET = "5ecr3tV4lue"
SIGNED = f"https://bucket.example.com/a%20b.jpg?X-Amz-Expires=3600&X-Amz-Signature={SECRET}"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _kept_logging():
    with kept_logging():
        yield


@pytest.fixture
def out():
    stream = io.StringIO()
    configure_logging(log_format="json", level="INFO", stream=stream)
    return stream


def fail_twice() -> None:
    raise RuntimeError(f"token={SECRET}") from ConnectionError(f"GET {SIGNED}: refused")


def events_of(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def only_event(stream: io.StringIO) -> dict[str, object]:
    (event,) = events_of(stream)
    return event


def test_terminal_is_shown_the_control_characters_of_a_name_and_does_not_obey_them():
    stream = Terminal()
    configure_logging(log_format="auto", level="INFO", stream=stream)
    get_logger("jobs").info("sample.quarantined", file="a\x1b]0;owned\x07.jpg")
    assert r"a\x1b]0;owned\x07.jpg" in stream.getvalue()
    assert "\x1b]0;" not in stream.getvalue()


def test_event_is_one_json_object_a_line_with_its_time_level_and_component(out):
    get_logger("poll").info(
        "poll.ended", watch="gate", new=3, name="line\nbreak", ratio=0.5, none=None, ok=True
    )
    event = only_event(out)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "poll.ended",
        "level": "info",
        "component": "poll",
        "watch": "gate",
        "new": 3,
        "name": "line\nbreak",
        "ratio": 0.5,
        "none": None,
        "ok": True,
    }


def test_event_below_the_level_is_not_printed(out):
    get_logger("poll").debug("poll.ended")
    assert out.getvalue() == ""


@pytest.mark.scenario(number=26)
@pytest.mark.parametrize(
    "facts",
    [
        {"url": SIGNED},
        {"urls": [SIGNED, (SIGNED,)]},
        {"nested": {"deeper": {"read_url": SIGNED}}},
        {"keys": {SIGNED: 1}},
        {"a_set": {SIGNED}},
        {"raw": SIGNED.encode()},
        {"error": ValueError(f"GET {SIGNED} failed")},
        {"header": {"Authorization": f"Bearer {SECRET}"}},
        {"token": SECRET},
        {"control_token": SECRET},
        {"nested": {"lightly_token": SECRET, "password": SECRET}},
        {"store": f"postgresql://me:{SECRET}@db/watcher"},
    ],
)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_event_with_a_secret_anywhere_in_its_fields_is_printed_without_it(facts, log_format):
    stream = io.StringIO()
    configure_logging(log_format=log_format, stream=stream)
    get_logger("x").warning("thing.happened", **facts)
    assert "thing.happened" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_event_text_itself_is_redacted(out):
    get_logger("x").info(f"read {SIGNED}")
    assert only_event(out)["event"] == "read https://bucket.example.com/a%20b.jpg?***"


def test_event_of_an_exception_has_its_traceback_on_the_same_line_without_secrets(out):
    try:
        fail_twice()
    except RuntimeError:
        get_logger("x").exception("run.crashed", step="upload")
    event = only_event(out)
    assert "Traceback" in event["exception"]
    assert "RuntimeError: token=***" in event["exception"]
    assert "bucket.example.com/a%20b.jpg?***" in event["exception"]
    assert SECRET not in out.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_event_of_another_library_takes_the_same_way_without_secrets(log_format):
    stream = io.StringIO()
    configure_logging(log_format=log_format, stream=stream)
    logging.getLogger("urllib3.connectionpool").warning(
        "Retrying %s after %r", SIGNED, ConnectionError(SIGNED)
    )
    try:
        fail_twice()
    except RuntimeError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    logging.getLogger("urllib3").info("not important enough")
    assert SECRET not in stream.getvalue()
    assert "not important" not in stream.getvalue()
    assert "Retrying https://bucket.example.com/a%20b.jpg?***" in stream.getvalue()
    if log_format == "json":
        first, second = events_of(stream)
        assert (first["component"], first["level"]) == ("urllib3.connectionpool", "warning")
        assert "RuntimeError: token=***" in second["exception"]


def test_event_of_another_library_is_printed_once(out):
    configure_logging(log_format="json", stream=out)
    logging.getLogger("alembic").warning("careful")
    assert len(events_of(out)) == 1


def test_warning_of_python_routed_to_the_log_is_one_line(out):
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(f"odd {SIGNED}", UserWarning, stacklevel=1)
    finally:
        logging.captureWarnings(False)
    assert SECRET not in out.getvalue()
    assert len(events_of(out)) == 1


def test_event_bound_to_a_context_carries_it(out):
    with structlog.contextvars.bound_contextvars(watch="gate"):
        get_logger("x").info("a.b")
    get_logger("x").info("c.d")
    first, second = events_of(out)
    assert first["watch"] == "gate"
    assert "watch" not in second


def test_format_chosen_by_itself_is_for_people_on_a_terminal_and_json_elsewhere():
    terminal, pipe = Terminal(), io.StringIO()
    configure_logging(log_format="auto", stream=terminal)
    get_logger("x").info("a.b", n=1)
    configure_logging(log_format="auto", stream=pipe)
    get_logger("x").info("a.b", n=1)
    assert only_event(pipe)["n"] == 1
    assert not terminal.getvalue().startswith("{")
    assert "a.b" in terminal.getvalue()


@pytest.mark.parametrize(("level", "n"), [("DEBUG", 4), ("INFO", 3), ("WARNING", 2), ("ERROR", 1)])
def test_level_lets_through_what_is_at_least_as_high(level, n):
    stream = io.StringIO()
    configure_logging(log_format="json", level=level, stream=stream)
    log = get_logger("x")
    for say in (log.debug, log.info, log.warning, log.error):
        say("a.b")
    assert len(events_of(stream)) == n
