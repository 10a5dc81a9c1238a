"""Real processes whose secrets in files change while they run: sinks, embedders and keys of a daemon, a platform alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.acceptance.daemon_process import DaemonProcess
from tests.acceptance.forge import Forge
from tests.leaks import OUTPUTS
from tests.photographs import write_photographs
from tests.postgres import free_port
from tests.unit.lightly.servers import Reply, Seen, serve
from tests.waiting import wait_for
from watcher.domain.errors import WatcherError
from watcher.domain.statements import compute_key_id
from watcher.lightly.transport import Transport

pytestmark = pytest.mark.deep

OLD, NEW = "the-0ld-secret-of-a-test", "the-new-s3cret-of-a-test"
WATCH = "WATCHER_WATCHES__INCOMING__"


def is_signed(seen: Seen, secret: str) -> bool:
    headers = {name.lower(): value for name, value in seen.headers.items()}
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + seen.body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


def replace(path: Path, text: str) -> None:
    """As Kubernetes and careful people do it."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def test_daemon_takes_up_the_secrets_of_its_webhook_and_its_embedding_service(tmp_path):
    OUTPUTS.know(OLD, NEW)
    seen: list[tuple[str, int]] = []

    def answer(asked: Seen) -> Reply:
        if asked.path == "/embed":
            good = asked.headers.get("Authorization") == f"Bearer {NEW}"
            vectors = [[1.0, float(n)] for n in range(len(asked.json["images"]))]
            reply = Reply(body={"vectors": vectors}) if good else Reply(status=401, body={})
        else:
            reply = Reply(status=200 if is_signed(asked, NEW) else 401, body={})
        seen.append((asked.path, reply.status))
        return reply

    def is_seen(path: str, status: int) -> bool:
        return (path, status) in seen

    webhook, embedder = tmp_path / "webhook", tmp_path / "embedder"
    webhook.write_text(OLD)
    embedder.write_text(OLD)
    with serve(answer) as server:
        daemon = DaemonProcess(
            tmp_path / "data",
            **{
                "WATCHER_RUNS__RETRY_BASE_S": "0.2",
                f"{WATCH}SCHEDULE__INTERVAL_S": "0.5",
                f"{WATCH}BATCH__MIN_SAMPLES": "3",
                f"{WATCH}EMBED__KIND": "http",
                f"{WATCH}EMBED__URL": f"{server.url}/embed",
                f"{WATCH}EMBED__TOKEN_FILE": str(embedder),
                f"{WATCH}EMBED__VERSION": "1",
                f"{WATCH}EMBED__DIM": "2",
                f"{WATCH}DELIVER__WEBHOOK__QA__URL": f"{server.url}/hook",
                f"{WATCH}DELIVER__WEBHOOK__QA__SECRET_FILE": str(webhook),
            },
        )
        write_photographs(tmp_path / "data" / "incoming", 3, seed=1)
        try:
            daemon.start()
            for path, secret in (("/embed", embedder), ("/hook", webhook)):
                wait_for(partial(is_seen, path, 401), what=f"{path} refuses", explain=daemon.read_log)
                assert (path, 200) not in seen
                replace(secret, NEW)
                wait_for(partial(is_seen, path, 200), what=f"{path} accepts", explain=daemon.read_log)
            replace(webhook, "short")  # refused by the settings, so the good one stays
            assert daemon.terminate() == 0
        finally:
            daemon.stop_if_running()
    log = daemon.read_log()
    assert log.count('"secret.changed"') == 2
    assert log.count("daemon.started") == 1


def test_daemon_signs_with_the_new_keys_of_its_statements_and_its_platform(tmp_path):
    keys = {name: tmp_path / name for name in ("statement", "platform")}
    first = {"statement": "the first key of the statements of a test", "platform": "0a" * 32}
    second = {"statement": "the second key of the statements of a test", "platform": "1b" * 32}
    OUTPUTS.know(*first.values(), *second.values())
    for name, path in keys.items():
        path.write_text(first[name])
    daemon = DaemonProcess(
        tmp_path / "data",
        WATCHER_STATEMENT__KEY_FILE=str(keys["statement"]),
        WATCHER_PLATFORM__KEY_FILE=str(keys["platform"]),
        WATCHER_WATCHES__EAST__SCHEDULE__INTERVAL_S="0.5",
        WATCHER_WATCHES__WEST__SCHEDULE__INTERVAL_S="0.5",
    )
    try:
        daemon.start()
        wait_for(
            lambda: all(watch["mark_s"] for watch in daemon.status()["watches"]),
            what="both watches are polled",
            explain=daemon.read_log,
        )
        daemon.run_command("audit", "east")
        for name, path in keys.items():
            replace(path, f"{second[name]}\n{first[name]}")
        # A token that nobody knows makes the daemon look.
        wait_for(
            lambda: not is_accepted(daemon.server, OLD) and daemon.read_log().count('"secret.changed"') == 2,
            what="both keys are taken up",
            explain=daemon.read_log,
        )
        daemon.run_command("audit", "west")
        token = daemon.run_command("platform", "users", "add", "ann").strip()
        assert is_accepted(daemon.server, token)
        for watch, key in (("east", first), ("west", second)):
            exported = tmp_path / f"{watch}.jsonl"
            daemon.run_command("statement", "export", watch, "--file", str(exported))
            assert compute_key_id(key["statement"]) in exported.read_text()
            assert "1 statements" in daemon.run_command("statement", "verify", str(exported))
        assert daemon.terminate() == 0
    finally:
        daemon.stop_if_running()
    assert daemon.read_log().count("daemon.started") == 1


@pytest.fixture
def forge() -> Iterator[Forge]:
    made = Forge()
    yield made
    made.close()


def is_accepted(url: str, token: str) -> bool:
    transport = Transport(server=url, token=token)
    try:
        transport.get_json("/v1/datasets", type=list)
    except WatcherError:  # refused, or not up yet
        return False
    finally:
        transport.close()
    return True


def test_platform_alone_takes_up_its_token_when_a_new_one_is_shown(tmp_path, forge):
    token, port = tmp_path / "token", free_port()
    token.write_text(OLD)
    url = f"http://127.0.0.1:{port}"
    pid = forge.start(
        ["platform", "--port", str(port), "--data-dir", str(tmp_path / "data")],
        environ={"WATCHER_PLATFORM__TOKEN_FILE": str(token), "WATCHER_LOG__FORMAT": "json"},
        out=tmp_path / "out",
        log=tmp_path / "log",
    )
    try:
        wait_for(lambda: is_accepted(url, OLD), what="the platform knows its token")
        assert not is_accepted(url, NEW)
        replace(token, NEW)
        wait_for(lambda: is_accepted(url, NEW), what="the new token counts")
        wait_for(lambda: not is_accepted(url, OLD), what="the old one counts no more")
        with requests.Session() as session:
            session.trust_env = False
            assert session.get(f"{url}/v1/versions/pip/minimum", timeout=10).status_code == 200
    finally:
        os.kill(pid, signal.SIGTERM)
        assert forge.wait(pid, limit_s=60) == 0
    assert '"secret.changed"' in (tmp_path / "log").read_text()
