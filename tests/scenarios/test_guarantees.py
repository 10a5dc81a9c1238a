"""What `docs/guarantees.md` says is so: every scenario has its test, every break its place in the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.mutations import BREAKS, Break

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
N_SCENARIOS = 42


def _exists(reference: str) -> bool:
    path, _, name = reference.partition("::")
    name = name.partition("[")[0]
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body)


def test_every_scenario_has_a_test() -> None:
    rows = re.findall(r"^\| (\d+) \|(.*)\|(.*)\|(.*)\|$", TEXT, re.MULTILINE)
    assert [int(row[0]) for row in rows] == list(range(1, N_SCENARIOS + 1))
    bare = [row[0] for row in rows if "::test_" not in row[3]]
    assert bare == []


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py::\w+)", TEXT)
    assert len(named) > N_SCENARIOS
    assert [reference for reference in named if not _exists(reference)] == []


def test_every_test_of_a_scenario_bears_its_number() -> None:
    """In its name, or in a mark: `pytest -m 'scenario(number=7)'`."""
    bare = []
    for number, cell in re.findall(r"^\| (\d+) \|.*\|(.*)\|$", TEXT, re.MULTILINE):
        for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)", cell):
            (test,) = [
                node
                for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body
                if isinstance(node, ast.FunctionDef) and node.name == name
            ]
            marks = {ast.unparse(decorator) for decorator in test.decorator_list}
            if not (
                name.startswith(f"test_scenario_{int(number):02d}_")
                or f"pytest.mark.scenario(number={number})" in marks
            ):
                bare.append(f"{number}: {name}")
    assert bare == []


def test_every_numbered_scenario_test_is_in_the_table() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):
        for number, name in re.findall(
            r"def (?:test_scenario_(\d+)_)(\w+)", path.read_text(encoding="utf-8")
        ):
            (row,) = re.findall(rf"^\| {int(number)} \|.*$", TEXT, re.MULTILINE)
            assert f"test_scenario_{number}_{name}" in row


@pytest.mark.parametrize("each", BREAKS, ids=lambda each: each.rule)
def test_break_finds_its_place_in_the_code(each: Break) -> None:
    assert (ROOT / each.path).read_text(encoding="utf-8").count(each.old) == 1
    assert _exists(each.test)


def test_table_of_breaks_is_that_of_the_script() -> None:
    section = TEXT.partition("## Broken on purpose")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| `(.+)` \|$", section, re.MULTILINE)
    assert rows == [(each.rule, each.test) for each in BREAKS]


def test_breaks_are_many() -> None:
    assert len(BREAKS) >= 15
