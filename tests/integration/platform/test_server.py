"""Start, stop, schema, keys."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest
import requests

from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN
from watcher.domain.errors import ConfigError, SchemaMismatchError
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig


def test_taken_port_is_named(build_server):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=str(port)):
            build_server(port=port)


def test_url_has_the_real_port_and_answers_when_start_returns(build_server):
    server = build_server()
    assert not server.url.endswith(":0")
    assert requests.get(server.url + "/ping", timeout=5).status_code == 200


def test_old_schema_is_refused_with_the_command(tmp_path, root, database_url):
    config = PlatformConfig(
        token=TOKEN, datasource_root=root, data_dir=tmp_path / "data", port=0, database_url=database_url
    )
    server = PlatformServer(config, migrate=False)
    with pytest.raises(SchemaMismatchError, match="watcher platform --migrate"):
        server.start()
    migrated = PlatformServer(config)
    migrated.start()
    migrated.stop()
    again = PlatformServer(config, migrate=False)
    again.start()
    again.stop()


@pytest.mark.parametrize("token", ["", "short", "with\nbreak1", "ünicode-token"])
def test_weak_token_is_refused(tmp_path, token):
    with pytest.raises(ConfigError):
        PlatformConfig(token=token, datasource_root=tmp_path, data_dir=tmp_path)


def test_token_is_in_no_repr(tmp_path):
    assert TOKEN not in repr(PlatformConfig(token=TOKEN, datasource_root=tmp_path, data_dir=tmp_path))


def test_key_is_private_and_damage_is_told(build_server, tmp_path):
    server = build_server()
    key = tmp_path / "data" / "platform.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    server.stop()
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        build_server()
    key.chmod(0o600)
    key.write_text("not hexadecimal")
    with pytest.raises(ConfigError, match="damaged"):
        build_server()


def test_new_token_of_the_settings_replaces_the_old_one(build_server):
    first = build_server()
    with Caller(first.url, TOKEN) as api:
        dataset = api.create_dataset()
    first.stop()
    second = build_server(token="another-token")
    assert requests.get(second.url + "/v1/datasets", params={"token": TOKEN}, timeout=5).status_code == 401
    with Caller(second.url, "another-token") as api:
        assert api("GET", dataset)["name"] == "pictures"


def test_stop_lets_a_request_under_way_end(build_server, root):
    server = build_server()
    (root / "in" / "big.bin").write_bytes(bytes(30_000_000))
    with Caller(server.url, TOKEN) as api:
        dataset = api.create_dataset()
        api.set_local(dataset)
        url = api("GET", f"{dataset}/datasource/list")["data"][0]["readUrl"]
        with requests.get(url, stream=True, timeout=30) as answer:
            stopper = threading.Thread(target=server.stop, args=(20.0,))
            stopper.start()
            time.sleep(0.3)
            assert sum(len(chunk) for chunk in answer.iter_content(1_000_000)) == 30_000_000
        stopper.join(30)
    assert not stopper.is_alive()


def test_killed_server_leaves_a_data_folder_that_works(tmp_path, root, build_server):
    code = f"""
import pathlib
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig
server = PlatformServer(PlatformConfig(token={TOKEN!r}, datasource_root=pathlib.Path({str(root)!r}),
    data_dir=pathlib.Path({str(tmp_path / "data")!r}), port=0))
server.start()
print(server.url, flush=True)
import time; time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        while not (line := process.stdout.readline()).startswith("http"):
            assert line
        with Caller(line.strip(), TOKEN) as api:
            dataset = api.create_dataset()
            api.create_samples(dataset, ["a.jpg", "b.jpg"])
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    with Caller(build_server().url, TOKEN) as api:
        assert api("GET", f"{dataset}/mappings", params={"field": "fileName"}) == ["a.jpg", "b.jpg"]
        api.create_samples(dataset, ["a.jpg", "c.jpg"])
        assert api("GET", dataset)["nSamples"] == 3


def test_run_alone_ends_cleanly_on_a_signal(tmp_path, root):
    command = [sys.executable, "-m", "watcher", "platform", "--port", "0", "--token", TOKEN]
    folders = ["--data-dir", str(tmp_path / "data"), "--datasource-root", str(root)]
    with subprocess.Popen(
        [*command, *folders], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        while not (line := process.stdout.readline()).startswith("  data "):
            assert line
        process.send_signal(signal.SIGTERM)
        assert "platform.stopped" in process.stdout.read()
        assert process.wait(20) == 0
