"""The pages that follow from the code are as the code is now."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from watcher.metrics import Metrics
from watcher.ops.states import FAMILIES
from watcher.settings.root import Settings, load_settings
from watcher.settings.variables import iter_variables

ROOT = Path(__file__).parents[2]


def load_generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


generator = load_generator()


@pytest.mark.parametrize("page", sorted(generator.PAGES))
def test_page_is_as_the_code_is(page):
    committed = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert committed == generator.PAGES[page](), "run `make docs-generated`"


def test_metrics_are_named_by_the_rules():
    names = {family.name for family in FAMILIES} | {
        name
        for name in re.findall(r"^\| `(\w+)`", generator.render_metrics(), re.MULTILINE)
        if name.startswith("watcher_")
    }
    assert len(names) > 25
    for name in names:
        assert re.fullmatch(r"watcher_[a-z]+(_[a-z]+)*", name), name
        assert not re.search(r"_(ms|minutes|kb|mb|percent)(_|$)", name), name


def test_every_metric_tells_what_it_is():
    for collector in Metrics().registry._collector_to_names:
        assert collector._documentation.endswith("."), collector._name
    assert all(family.text.endswith(".") for family in FAMILIES)


def test_events_are_found_in_every_way_they_are_logged(tmp_path):
    (tmp_path / "part.py").write_text(
        "from watcher.logs import describe_error, get_logger\n"
        '_log = get_logger("part")\n'
        "def work(ok, error):\n"
        '    _log.info("thing.begun", watch=1)\n'
        '    (_log.info if ok else _log.warning)("thing.ended", n=2)\n'
        "    log = _log.debug if ok else _log.info\n"
        '    log("thing.told", x=1)\n'
        "    bound = _log.bind(batch=1)\n"
        '    bound_log = _log.bind(batch=1)\n    bound_log.error("thing.failed", **describe_error(error))\n'
        '    print("no.event")\n'
        '    math.log("no.event_either")\n'
    )
    found = {
        name: (sorted(event.levels), event.components, sorted(event.fields))
        for name, event in generator.find_events(tmp_path).items()
    }
    assert found == {
        "thing.begun": (["info"], {"part"}, ["watch"]),
        "thing.ended": (["info", "warning"], {"part"}, ["n"]),
        "thing.told": (["debug", "info"], {"part"}, ["x"]),
        "thing.failed": (["error"], {"part"}, ["batch", "error", "kind", "request_id"]),
    }


def test_every_event_is_noun_and_past_verb():
    events = generator.find_events()
    assert len(events) > 15
    for name in events:
        assert re.fullmatch(r"[a-z_]+\.[a-z_]+", name), name


# What makes sense only beside another.
NEEDS = {
    "LIGHTLY_SERVER_LOCATION": {"LIGHTLY_TOKEN": "a-token"},
    "WATCHER_HTTP__TLS_CERT_FILE": {"WATCHER_HTTP__TLS_KEY_FILE": "/run/secrets/tls.key"},
    "WATCHER_HTTP__TLS_KEY_FILE": {"WATCHER_HTTP__TLS_CERT_FILE": "/run/secrets/tls.crt"},
    "WATCHER_CONTROL__HOST": {"WATCHER_CONTROL__PORT": "8090"},
}


@pytest.mark.parametrize("variable", list(iter_variables(Settings)), ids=lambda variable: variable.name)
def test_variable_of_the_configuration_has_an_example_that_is_understood(variable):
    example = generator.build_example(variable)
    assert example not in {"", "None"}
    if variable.is_secret:
        return
    name = variable.name.replace("<NAME>", "GATE")
    load_settings({**NEEDS.get(name, {}), name: example})
