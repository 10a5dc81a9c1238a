"""Vectors from a program of the user's: it may hang, die, talk rubbish or start others, and nothing is left of it."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.waiting import wait_for
from watcher.domain.clock import SystemClock
from watcher.domain.errors import ConfigError, EmbedderAnswerError, EmbedderUnavailableError
from watcher.domain.step_rules import EmbedderKind, EmbedRules
from watcher.embedders.command import CommandEmbedder
from watcher.images import DEFAULT_LIMITS

HEAD = """
import json, os, sys, time
from PIL import Image
print("starting", file=sys.stderr)
"""
MEANS = """
for line in sys.stdin:
    asked = json.loads(line)
    with Image.open(asked["path"]) as picture:
        red, green, blue = picture.convert("RGB").resize((1, 1)).getpixel((0, 0))
    if red > 250:
        answer = {"id": asked["id"], "error": "too red"}
    else:
        answer = {"id": asked["id"], "vector": [red, green]}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def make(tmp_path):
    made: list[CommandEmbedder] = []

    def build(program: str, **changes) -> CommandEmbedder:
        path = tmp_path / f"embedder-{len(made)}.py"
        path.write_text(HEAD + program)
        values = {"batch_size": 4, "time_limit_s": 60.0, "dim": 2, "version": "v1", **changes}
        rules = EmbedRules(kind=EmbedderKind.COMMAND, command=(sys.executable, str(path)), **values)
        embedder = CommandEmbedder(rules, limits=DEFAULT_LIMITS, work_dir=tmp_path, clock=SystemClock())
        made.append(embedder)
        return embedder

    yield build
    for embedder in made:
        embedder.close_process()


def encode(red: int, green: int = 0, *, size=(16, 12)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (red, green, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def embed(embedder: CommandEmbedder, *contents: bytes) -> np.ndarray:
    return embedder.embed_prepared([embedder.prepare(content) for content in contents])


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_vectors_come_in_the_order_of_the_pictures_from_one_process(make, tmp_path):
    embedder = make(MEANS)
    assert (embedder.name, embedder.dim, embedder.batch_size) == ("command-v1", 2, 4)
    levels = [0, 40, 80, 120, 160, 200, 240]
    found = embed(embedder, *(encode(level, 100) for level in levels))
    np.testing.assert_allclose(found, [[level, 100] for level in levels], atol=3)
    pid = embedder._process.pid
    embed(embedder, encode(10))
    assert embedder._process.pid == pid
    assert [path.name for path in tmp_path.iterdir()] == ["embedder-0.py"]


def test_picture_that_the_command_refuses_stops_no_other(make):
    found = embed(make(MEANS), encode(10), encode(255), encode(30))
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False]


def test_answers_in_another_order_find_their_pictures(make):
    program = MEANS.replace(
        "for line in sys.stdin:", "for line in reversed([next(sys.stdin) for _ in range(3)]):"
    )
    found = embed(make(program), encode(10), encode(100), encode(200))
    np.testing.assert_allclose(found[:, 0], [10, 100, 200], atol=3)


def test_answer_that_comes_twice_is_not_taken_for_that_of_a_later_question(make):
    embedder = make(
        """
before = None
for line in sys.stdin:
    asked = json.loads(line)
    with Image.open(asked["path"]) as picture:
        red = picture.convert("RGB").getpixel((0, 0))[0]
    answer = json.dumps({"id": asked["id"], "vector": [red, 1]})
    print(before or answer, flush=True)
    before = answer
""",
        batch_size=1,
    )
    assert embed(embedder, encode(10))[0][0] == pytest.approx(10, abs=1)
    with pytest.raises(EmbedderAnswerError, match="which answers no question"):
        embed(embedder, encode(200))
    assert embed(embedder, encode(200))[0][0] == pytest.approx(200, abs=1)


def test_pictures_are_shrunk_before_they_are_handed_on_unless_told_otherwise(make):
    program = """
for line in sys.stdin:
    asked = json.loads(line)
    with Image.open(asked["path"]) as picture:
        print(json.dumps({"id": asked["id"], "vector": list(picture.size)}), flush=True)
"""
    assert embed(make(program, send_px=64), encode(1, size=(200, 100))).tolist() == [[64, 32]]
    assert embed(make(program, send_px=0), encode(1, size=(200, 100))).tolist() == [[200, 100]]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ('"hello"', "printed '\"hello\"', which answers no question"),
        ("hello", "printed 'hello', which answers no question"),
        ('{"id": 7, "vector": [1, 2]}', "which answers no question"),
        ('{"id": true, "vector": [1, 2]}', "which answers no question"),
        ('{"id": 0}', "answered NoneType instead of 2 numbers"),
        ('{"id": 0, "vector": [1, 2, 3]}', "answered a list of 3 instead of 2 numbers"),
        ('{"id": 0, "vector": [1, "2"]}', "something other than numbers"),
        ('{"id": 0, "vector": [1, 1e300]}', "not finite"),
    ],
)
def test_command_that_prints_rubbish_is_not_asked_again_as_it_is(make, answer, told):
    embedder = make(f"next(sys.stdin)\nprint({answer!r}, flush=True)\ntime.sleep(600)")
    with pytest.raises(EmbedderAnswerError) as caught:
        embed(embedder, encode(1))
    assert told in str(caught.value)
    assert not caught.value.retryable
    assert embedder._process is None


def test_command_that_hangs_is_ended_with_all_it_started(make, tmp_path):
    program = f"""
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open({str(tmp_path / "pids.new")!r}, "w") as file:
    file.write(f"{{os.getpid()}} {{child.pid}}")
os.rename({str(tmp_path / "pids.new")!r}, {str(tmp_path / "pids")!r})
time.sleep(600)
"""
    embedder = make(program, time_limit_s=0.2)
    # The interpreter may take longer than the limit to start.
    while not (tmp_path / "pids").exists():
        with pytest.raises(EmbedderUnavailableError, match=r"did not answer within") as caught:
            embed(embedder, encode(1))
        assert caught.value.retryable
        embedder._rules = EmbedRules(
            **{name: getattr(embedder._rules, name) for name in embedder._rules.__slots__}
            | {"time_limit_s": embedder._rules.time_limit_s * 3}
        )
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        wait_for(lambda pid=pid: not is_alive(pid))


def test_command_that_fails_half_way_is_started_anew_by_the_next_call(make, tmp_path):
    flag = tmp_path / "failed-once"
    program = f"""
if not os.path.exists({str(flag)!r}):
    open({str(flag)!r}, "w").close()
    asked = json.loads(next(sys.stdin))
    print(json.dumps({{"id": asked["id"], "vector": [1, 2]}}), flush=True)
    print("out of memory, so to say", file=sys.stderr)
    sys.exit(3)
{MEANS}"""
    embedder = make(program)
    with pytest.raises(EmbedderUnavailableError, match=r"(?s)ended with 3 before it answered.*out of memory"):
        embed(embedder, encode(1), encode(2))
    np.testing.assert_allclose(embed(embedder, encode(10), encode(20))[:, 0], [10, 20], atol=3)


def test_command_that_reads_slowly_and_prints_much_does_not_lock_up(make):
    program = (
        """
sys.stdout.write("\\n" * 300_000)
sys.stdout.flush()
"""
        + MEANS
    )
    assert embed(make(program), encode(10)).shape == (1, 2)


def test_command_that_is_no_program_is_refused(tmp_path):
    path = tmp_path / "not executable"
    path.write_text("")
    rules = EmbedRules(kind=EmbedderKind.COMMAND, command=(str(path),), dim=2, version="v1")
    embedder = CommandEmbedder(rules, limits=DEFAULT_LIMITS, work_dir=tmp_path, clock=SystemClock())
    with pytest.raises(ConfigError, match="cannot be started: Permission denied"):
        embed(embedder, encode(1))


def test_command_ends_with_its_embedder(make):
    embedder = make(MEANS)
    embed(embedder, encode(1))
    pid = embedder._process.pid
    assert os.getpgid(pid) == pid
    embedder.close_process()
    wait_for(lambda: not is_alive(pid))
