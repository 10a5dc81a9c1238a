"""The documentation as a site: built without a warning, every page in its menu, every command in it known."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.exceptions import TyperException

from watcher.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
COMMAND = re.compile(
    r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\.venv/bin/|docker compose exec \w+ )?(watcher .*?)(?:\s*&|\s+#.*)?$"
)


def list_commands() -> list[tuple[str, str]]:
    """(page, command) for every line of a block of code that calls `watcher`."""
    found = []
    for page in [ROOT / "README.md", *PAGES]:
        for block in re.findall(
            r"^```(?:sh|console|bash)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE
        ):
            joined = block.replace("\\\n", " ")
            found += [
                (page.name, match[1])
                for line in joined.splitlines()
                if (match := COMMAND.match(line.strip()))
            ]
    return sorted(set(found))


def parse(arguments: list[str]) -> None:
    """As the command line would, without running anything; raises for what it would refuse."""
    command, rest = typer.main.get_command(app), arguments
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name, *rest = rest
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
    command.make_context(str(command.name), rest)


def test_site_is_built_without_a_warning(tmp_path):
    done = subprocess.run(
        [
            Path(sys.executable).with_name("mkdocs"),
            "build",
            "--quiet",
            "--strict",
            "--site-dir",
            tmp_path / "site",
        ],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    # A reader's browser asks nobody else.
    outside = re.compile(r'(?:src|href)="(?:https?:)?//(?!squidfunk|www\.mkdocs)[^"]*\.(?:js|css|woff2?)')
    assert [page.name for page in pages if outside.search(page.read_text())] == []


def test_every_page_is_in_the_menu():
    text = (ROOT / "mkdocs.yml").read_text()
    listed = set(re.findall(r"[\w/-]+\.md", str(yaml.safe_load(text)["nav"])))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in PAGES}


def test_commands_are_found_in_the_pages():
    assert {"README.md", "quick-start.md", "upgrades.md"} <= {page for page, _command in list_commands()}


@pytest.mark.parametrize(("page", "command"), list_commands())
def test_command_of_a_page_exists_with_its_options(page, command):
    parse(shlex.split(command)[1:])


@pytest.mark.parametrize("wrong", [["stauts"], ["status", "--jsn"], ["why"], ["platform", "users", "ad"]])
def test_command_that_does_not_exist_is_noticed(wrong):
    with pytest.raises((AssertionError, TyperException)):
        parse(wrong)
