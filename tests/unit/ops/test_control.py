"""How a command finds the running daemon."""

from __future__ import annotations

import pytest

from tests.unit.ops.conftest import CONTROL_TOKEN
from watcher.domain.errors import ConfigError, NotSentError
from watcher.ops.control import Control


def test_control_written_is_read_again_and_is_for_its_owner_alone(tmp_path):
    control = Control(url="http://127.0.0.1:8080", token=CONTROL_TOKEN)
    control.write(tmp_path)
    assert Control.read(tmp_path) == control
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_control_of_a_killed_daemon_is_replaced_by_the_next_one(tmp_path):
    (tmp_path / ".control.json").write_text("left by a kill")
    for token in ("first", "second"):
        Control(url="http://127.0.0.1:1", token=token).write(tmp_path)
    assert Control.read(tmp_path).token == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["control.json"]


def test_control_removed_is_gone_however_often(tmp_path):
    Control(url="http://127.0.0.1:1", token="t").write(tmp_path)
    Control.remove(tmp_path)
    Control.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff", b'{"url": 5, "token": "5ecr3t"}'])
def test_control_that_cannot_be_read_is_told_with_the_way_out(tmp_path, content):
    if content is not None:
        (tmp_path / "control.json").write_bytes(content)
    with pytest.raises(
        ConfigError, match="run the command as the daemon's user and with its WATCHER_DATA_DIR"
    ) as caught:
        Control.read(tmp_path)
    assert "5ecr3t" not in str(caught.value)


def test_control_asks_the_running_daemon(sqlite_ops):
    Control(url=sqlite_ops.url, token=CONTROL_TOKEN).request("gate", "poll")
    assert sqlite_ops.asked == ["poll gate"]


def test_control_with_an_old_token_is_refused_without_showing_it(sqlite_ops):
    with pytest.raises(ConfigError, match="a control token is needed") as caught:
        Control(url=sqlite_ops.url, token="0ld").request("gate", "poll")
    assert "0ld" not in str(caught.value)


def test_control_of_an_unknown_watch_is_told(sqlite_ops):
    with pytest.raises(ConfigError, match="there is no watch"):
        Control(url=sqlite_ops.url, token=CONTROL_TOKEN).request("door", "poll")


def test_control_of_a_daemon_that_is_gone_is_told(free_port):
    with pytest.raises(NotSentError, match="does not answer"):
        Control(url=f"http://127.0.0.1:{free_port}", token="t").request("gate", "poll")
