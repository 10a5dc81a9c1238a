"""Crash points: a no-op until armed, and one behind every durable effect of the daemon's code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from watcher.domain import crash_points
from watcher.domain.crash_points import NAMES, CrashPlan, crash_point

ROOT = Path(__file__).parents[3] / "watcher"
MODULES = [
    ROOT / "attach.py",
    ROOT / "lateness.py",
    ROOT / "overwrites.py",
    ROOT / "poll.py",
    ROOT / "probe.py",
    ROOT / "reconcile.py",
    ROOT / "source_check.py",
    *sorted((ROOT / "jobs").glob("*.py")),
    *sorted((ROOT / "sinks").glob("*.py")),
]
# What the client's functions are called that leave the server as it was; any other verb counts as an effect.
READS = (
    "fetch_",
    "iter_",
    "build_",
    "wait_",
    "quote_",
    "check_",
    "find_",
    "read_",
    "is_",
    "open_pool",
)
SENDS = ("put_", "post_", "patch_", "delete_", "send_", "upload_")
REPLACES = {"replace", "rename", "link", "symlink"}
# Workflows that make more than one request with an effect, and what stands between two of them. What ends a
# workflow is followed by the point of its caller.
WORKFLOWS = {
    "register.py": {
        "create_sample_with_write_urls": "the end of ensure_sample",
        "create_sample": "the end of ensure_sample",
        "put_signed_url": "the end of put_sample_file",
        "create_initial_tag": "the end of ensure_initial_or_upsize_tag",
        "upsize_tags": "the end of ensure_initial_or_upsize_tag",
    },
    "embeddings.py": {
        "fetch_csv_write_url": "embedding.promised",
        "delete_embedding": "repeated by the call above: without it the name is free",
        "put_signed_url": "the end of upload_embeddings_csv",
        "trigger_projection": "never asked for by the daemon",
    },
    "sampling.py": {"create_sampling": "sampling.asked"},
}


class Module:
    """One module's effects."""

    def __init__(self, source: str, name: str) -> None:
        self.name = name
        self.tree = ast.parse(source)
        self.client = self._find_client_names()

    def _find_client_names(self) -> dict[str, str]:
        """Names imported from the client, with the names they have there."""
        return {
            alias.asname or alias.name: alias.name
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("watcher.lightly")
            for alias in node.names
        }

    def list_unguarded(self) -> list[str]:
        """Effects that no crash point follows, as `module:line`."""
        return [
            f"{self.name}:{statement.lineno}"
            for block in self._iter_blocks()
            for number, statement in enumerate(block)
            if self._has_effect(statement) and not _is_followed(block[number + 1 :])
        ]

    def list_effects(self) -> list[str]:
        return [
            f"{self.name}:{statement.lineno}"
            for block in self._iter_blocks()
            for statement in block
            if self._has_effect(statement)
        ]

    def _iter_blocks(self) -> Iterator[list[ast.stmt]]:
        for node in ast.walk(self.tree):
            for field in ("body", "orelse", "finalbody"):
                block = getattr(node, field, None)
                if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                    yield block

    def _has_effect(self, statement: ast.stmt) -> bool:
        """Whether a statement of its own, not one inside it, is an effect."""
        if isinstance(statement, ast.With):
            return any(_is_write_transaction(item.context_expr) for item in statement.items)
        inner = [
            node
            for field in ("body", "orelse", "finalbody", "handlers")
            for node in getattr(statement, field, [])
        ]
        skipped = {id(node) for outer in inner for node in ast.walk(outer)}
        return any(
            self._is_effect(node)
            for node in ast.walk(statement)
            if isinstance(node, ast.Call) and id(node) not in skipped
        )

    def _is_effect(self, call: ast.Call) -> bool:
        function = call.func
        if isinstance(function, ast.Name):
            known = self.client.get(function.id)
            return known is not None and known[0].islower() and not known.startswith(READS)
        if not isinstance(function, ast.Attribute):
            return False
        owner = function.value
        if isinstance(owner, ast.Name) and owner.id in self.client and self.client[owner.id][0].islower():
            return not function.attr.startswith(READS)
        if isinstance(owner, ast.Name) and owner.id in {"os", "shutil"}:
            return function.attr in REPLACES
        return ast.unparse(owner).endswith("transport") and function.attr.startswith(SENDS)


def _is_write_transaction(expression: ast.expr) -> bool:
    return (
        isinstance(expression, ast.Call)
        and isinstance(expression.func, ast.Attribute)
        and expression.func.attr == "write"
        and ast.unparse(expression.func.value).endswith("database")
    )


def _is_followed(rest: list[ast.stmt]) -> bool:
    """A point comes next; only a guard that leaves at once may stand before it."""
    for statement in rest:
        if isinstance(statement, ast.If) and not statement.orelse and len(statement.body) == 1:
            if isinstance(statement.body[0], (ast.Return, ast.Raise, ast.Continue)):
                continue
            return False
        return (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Call)
            and isinstance(statement.value.func, ast.Name)
            and statement.value.func.id == "crash_point"
        )
    return False


def _read(path: Path) -> Module:
    return Module(path.read_text(encoding="utf-8"), path.name)


def test_every_durable_effect_of_the_daemon_has_a_crash_point_behind_it() -> None:
    assert [place for path in MODULES for place in _read(path).list_unguarded()] == []


def test_effects_are_recognised_at_all() -> None:
    """The rule above is worth nothing if it sees no effects."""
    counts = {path.name: len(_read(path).list_effects()) for path in MODULES}
    assert counts["poll.py"] >= 7
    assert counts["upload.py"] >= 7
    assert counts["upload_outcomes.py"] >= 3
    assert counts["manifest.py"] == 1
    assert sum(counts.values()) >= 35, counts


@pytest.mark.parametrize(
    "effect",
    [
        "with context.database.write() as session:\n        batches.anything(session)",
        "tag_id = tags.upsize_tags(transport)",
        "return tags.invent_something_new(transport)",
        "if ensure_sample(transport):\n        pass",
        "os.replace(a, b)",
        "self.transport.put_signed_url(url)",
        "try:\n        tags.delete_tag(transport)\n    except ValueError:\n        pass",
    ],
)
def test_new_effect_without_a_point_is_found(effect: str) -> None:
    imports = (
        "from watcher.lightly import tags\nfrom watcher.lightly.workflows.register import ensure_sample\n"
    )
    bare = Module(f"{imports}def f():\n    {effect}\n    done()\n", "x.py")
    assert len(bare.list_unguarded()) == 1
    indent = "        " if effect.startswith("try") else "    "
    guarded = effect.replace("(transport)\n    except", f'(transport)\n{indent}crash_point("x")\n    except')
    if guarded == effect and not effect.startswith("return"):
        guarded = f'{effect}\n    crash_point("x")'
    if not effect.startswith("return"):
        assert Module(f"{imports}def f():\n    {guarded}\n", "x.py").list_unguarded() == []


@pytest.mark.parametrize(
    "harmless",
    [
        "tags.fetch_tags(transport)",
        "names = iter_file_names(x)",
        "batches.create_batch(session)",
        "SampleData(id=1)",
    ],
)
def test_what_only_reads_needs_no_point(harmless: str) -> None:
    source = (
        "from watcher.lightly import tags\nfrom watcher.lightly.mappings import iter_file_names\n"
        f"from watcher.lightly.wire.samples import SampleData\ndef f():\n    {harmless}\n"
    )
    assert Module(source, "x.py").list_effects() == []


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_workflows_make_no_request_that_nobody_thought_of(name: str) -> None:
    source = (ROOT / "lightly" / "workflows" / name).read_text(encoding="utf-8")
    called = {
        node.func.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    verbs = (
        "create_",
        "update_",
        "delete_",
        "put_",
        "upsize_",
        "trigger_",
        "post_",
        "patch_",
        "fetch_csv_write",
    )
    assert {call for call in called if call.startswith(verbs)} == set(WORKFLOWS[name])
    told = {point for point in WORKFLOWS[name].values() if point in NAMES}
    assert told == set(re.findall(r'crash_point\("([^"]+)"\)', source))


def test_every_name_stands_in_the_code_exactly_once() -> None:
    used = [
        name
        for path in sorted(ROOT.rglob("*.py"))
        for name in re.findall(r'crash_point\("([^"]+)"\)', path.read_text(encoding="utf-8"))
    ]
    assert sorted(used) == sorted(NAMES)


def test_point_without_a_plan_does_nothing_but_refuse_unknown_names() -> None:
    crash_point("poll.created")
    with pytest.raises(LookupError, match=r"poll\.creatd"):
        crash_point("poll.creatd")


@pytest.mark.parametrize("text", ["poll.creatd", "poll.created:", "poll.created:0", "poll.created:x", ":1"])
def test_plan_that_names_no_point_or_no_passing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="CRASH_AT"):
        CrashPlan(text)


def test_plan_dies_at_its_passing_alone() -> None:
    deaths: list[int] = []
    plan = CrashPlan("poll.page_stored:2", die=lambda: deaths.append(1))
    passed = ["poll.page_stored", "poll.created", "poll.created"]
    for name in passed:
        plan.note(name)
    assert not deaths
    for _ in range(3):
        plan.note("poll.page_stored")
    assert len(deaths) == 1


def test_armed_process_is_killed_at_its_point() -> None:
    code = (
        "from watcher.domain.crash_points import crash_point\n"
        "crash_point('poll.created'); print('first', flush=True); crash_point('poll.created'); print('second')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={crash_points.VARIABLE: "poll.created:2"},
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-9, "first\n")


def test_every_point_is_led_to_by_the_crash_matrix() -> None:
    """The matrix itself is a deep test; that none is missing there is not."""
    from tests.acceptance.test_crash_matrix import LED_TO_ELSEWHERE, POINTS

    led_to = {point.partition(":")[0] for points in POINTS.values() for point in points}
    assert led_to | LED_TO_ELSEWHERE == NAMES
    assert not led_to & LED_TO_ELSEWHERE
