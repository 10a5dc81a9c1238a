"""Every value is checked where it is read, and a refusal names the variable, the value and what is allowed."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from watcher.domain.errors import ConfigError
from watcher.settings.root import Settings, load_settings
from watcher.settings.variables import Variable, iter_variables

ALL = [v for v in iter_variables(Settings) if not v.name.startswith("LIGHTLY_")]


def name_of(variable: Variable) -> str:
    return variable.name.replace("<NAME>", "CAMERAS")


def bounds_of(variable: Variable) -> dict[str, float]:
    return {
        kind: float(getattr(rule, kind))
        for rule in variable.field.metadata
        for kind in ("ge", "gt", "le", "lt")
        if getattr(rule, kind, None) is not None
    }


NUMBERS = [v for v in ALL if bounds_of(v)]


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(environ).build_watch_configs()
    return str(caught.value)


def read(settings: Settings, variable: Variable) -> object:
    value: object = settings
    for part in variable.path:
        value = value["cameras"] if isinstance(value, dict) else getattr(value, part)
    return value


def test_numbers_of_every_kind_are_bounded_below():
    kinds = {
        name_of(v): v.field.annotation
        for v in ALL
        if v.field.annotation in (int, float, int | None, float | None)
    }
    assert set(kinds) == {name_of(v) for v in NUMBERS}
    assert all(set(bounds_of(v)) & {"ge", "gt"} for v in NUMBERS)


@pytest.mark.parametrize("variable", NUMBERS, ids=name_of)
def test_number_at_its_bounds_is_taken_and_beyond_them_refused_by_name(variable):
    name, bounds = name_of(variable), bounds_of(variable)
    cases = {"ge": (bounds.get("ge"), -1), "le": (bounds.get("le"), 1)}
    for bound, step in cases.values():
        if bound is None:
            continue
        inside, outside = (f"{value:g}" if value < 1e6 else f"{value:.0f}" for value in (bound, bound + step))
        assert float(read(load_settings({name: inside}), variable)) == bound
        assert refusal({name: outside}).startswith(f"{name}='{outside}': input should be ")
    if "gt" in bounds:
        assert refusal({name: f"{bounds['gt']:g}"}).startswith(f"{name}=")


@pytest.mark.parametrize("variable", NUMBERS, ids=name_of)
@pytest.mark.parametrize("value", ["many", "nan", "-inf", "1e", "0x10", "1,5", "--"])
def test_number_that_is_none_is_refused_by_name(variable, value):
    assert refusal({name_of(variable): value}).startswith(f"{name_of(variable)}='{value}': ")


@pytest.mark.parametrize("variable", [v for v in NUMBERS if "le" in bounds_of(v)], ids=name_of)
def test_number_without_end_is_refused_where_there_is_an_upper_bound(variable):
    assert name_of(variable) in refusal({name_of(variable): "inf"})


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("WATCHER_LOG__FORMAT", "xml", "'auto', 'json' or 'console'"),
        ("WATCHER_LOG__LEVEL", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("WATCHER_WATCHES__CAMERAS__UPLOAD__MODE", "some", "'metadata', 'thumbnails' or 'full'"),
        ("WATCHER_WATCHES__CAMERAS__SAMPLING__METHOD", "BEST", "'CORESET'"),
    ],
)
def test_choice_that_does_not_exist_is_refused_with_the_ones_that_do(name, value, allowed):
    text = refusal({name: value})
    assert text.startswith(f"{name}='{value}': ")
    assert allowed in text


def test_values_that_are_wrong_are_all_named_at_once():
    text = refusal({"WATCHER_HTTP__PORT": "70000", "WATCHER_RUNS__WORKERS": "0"})
    assert len(text.splitlines()) == 2


def test_value_that_is_wrong_does_not_bring_a_secret_beside_it_into_the_message():
    text = refusal(
        {"WATCHER_HTTP__PORT": "70000", "WATCHER_PLATFORM__TOKEN": "5ecr3t", "WATCHER_STORE__URL": "x"}
    )
    assert "5ecr3t" not in text


def test_value_that_is_endless_is_cut_in_the_message():
    assert len(refusal({"WATCHER_HTTP__PORT": "9" * 5000})) < 300


def test_settings_once_read_cannot_be_changed():
    settings = load_settings({})
    with pytest.raises(ValidationError, match="frozen"):
        settings.http.port = 1
    with pytest.raises(ValidationError, match="frozen"):
        settings.drain_timeout_s = 1.0


def test_every_variable_says_what_it_is():
    assert [v.name for v in iter_variables(Settings) if not v.field.description] == []
