"""`watcher health`: asks where the settings say, over TLS if they say so, and says what it was told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_site import write_pair
from watcher.healthcheck import Target, find_first_process, find_target, main
from watcher.serving import ThreadedServer

ROOT = Path(__file__).parents[2]


class Process:
    """Answers a path with a status, as health pages do."""

    def __init__(self, *, tls: tuple[Path, Path] | None = None) -> None:
        self.statuses: dict[str, int] = {}
        self.server = ThreadedServer(self, host="127.0.0.1", port=0, name="page", setting="X", tls=tls)
        self.server.start()

    async def __call__(self, scope, receive, send) -> None:
        status = self.statuses.get(scope["path"], 404)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b'{"status": "%d"}' % status})


@pytest.fixture(params=[False, True], ids=["http", "https"])
def process(request, tmp_path, monkeypatch):
    pair = write_pair(tmp_path) if request.param else None
    made = Process(tls=pair)
    monkeypatch.setenv("WATCHER_HTTP__PORT", str(made.server.port))
    if pair is not None:
        monkeypatch.setenv("WATCHER_HTTP__TLS_CERT_FILE", str(pair[0]))
        monkeypatch.setenv("WATCHER_HTTP__TLS_KEY_FILE", str(pair[1]))
    yield made
    made.server.stop()


def test_health_is_what_the_process_says_over_http_or_https_as_the_settings_are(process, capsys):
    process.statuses = {"/health/live": 200, "/health/ready": 503}
    assert main([]) == 0
    assert main(["live"]) == 0
    assert capsys.readouterr().out == '{"status": "200"}\n' * 2
    assert main(["ready"]) == 1
    assert capsys.readouterr().err == '{"status": "503"}\n'
    process.server.stop()
    assert main([]) == 1
    assert "no answer from http" in capsys.readouterr().err


def test_health_asked_over_http_of_a_process_with_tls_does_not_pass(tmp_path, monkeypatch, capsys):
    process = Process(tls=write_pair(tmp_path))
    process.statuses = {"/health/live": 200}
    monkeypatch.setenv("WATCHER_HTTP__PORT", str(process.server.port))
    assert main([]) == 1
    process.server.stop()
    assert capsys.readouterr().out == ""


TLS = {"WATCHER_HTTP__TLS_CERT_FILE": "/c.pem", "WATCHER_HTTP__TLS_KEY_FILE": "/k.pem"}


@pytest.mark.parametrize(
    ("process", "environ", "expected"),
    [
        ("run", {}, Target("127.0.0.1", 8080, "/health/live", tls=False)),
        (
            "run",
            {"WATCHER_HTTP__HOST": "0.0.0.0", **TLS},
            Target("127.0.0.1", 8080, "/health/live", tls=True),
        ),
        (
            "run",
            {"WATCHER_HTTP__HOST": "::", "WATCHER_HTTP__PORT": "9"},
            Target("::1", 9, "/health/live", tls=False),
        ),
        ("worker", {"WATCHER_WORKER__PORT": "7", **TLS}, Target("127.0.0.1", 7, "/health/live", tls=True)),
        ("platform", TLS, Target("127.0.0.1", 8000, "/v1/versions/pip/minimum", tls=False)),
        (
            "platform",
            {"WATCHER_PLATFORM__HOST": "10.0.0.7", "WATCHER_PLATFORM__PORT": "70"},
            Target("10.0.0.7", 70, "/v1/versions/pip/minimum", tls=False),
        ),
    ],
)
def test_address_follows_the_variables_of_each_process(process, environ, expected):
    assert find_target(environ, process=process, question="live") == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("/opt/watcher/bin/python /opt/watcher/bin/watcher run", ("run", [])),
        ("python -m watcher worker --steps embed", ("worker", ["--steps", "embed"])),
        ("/sbin/docker-init -- watcher platform --port=9", ("platform", ["--port=9"])),
        ("/usr/bin/python3 /usr/bin/watcher migrate", None),
        ("/sbin/init splash", None),
        ("/usr/bin/run watcher", None),
        ("/srv/watcher-tools/run run", None),
        ("", None),
    ],
)
def test_command_of_the_container_is_found_behind_what_starts_it(words, expected):
    found = find_first_process("".join(f"{word}\0" for word in words.split()).encode())
    assert (found and (found.process, [word for word in found.arguments if word])) == expected


def test_health_asks_what_the_container_runs_unless_told_otherwise(tmp_path, monkeypatch, capsys):
    daemon, worker, platform = (Process() for _ in range(3))
    daemon.statuses = {"/health/live": 503}
    worker.statuses = {"/health/live": 200, "/health/ready": 503}
    platform.statuses = {"/v1/versions/pip/minimum": 200}
    monkeypatch.setenv("WATCHER_HTTP__PORT", str(daemon.server.port))
    monkeypatch.setenv("WATCHER_WORKER__PORT", str(worker.server.port))
    monkeypatch.setenv("WATCHER_PLATFORM__PORT", "1")
    first = tmp_path / "cmdline"
    here = f"--port\0{platform.server.port}"
    asked = {
        (b"watcher\0run\0", ()): 1,
        (b"watcher\0worker\0", ()): 0,
        (b"watcher\0worker\0", ("ready",)): 1,
        (b"watcher\0worker\0", ("--of", "run")): 1,
        (f"watcher\0platform\0{here}\0".encode(), ()): 0,
        (f"watcher\0platform\0--host\0000.0.0.0\0{here}\0".encode(), ("ready", "--of", "platform")): 0,
        (b"watcher\0platform\0", ()): 1,  # where the variable says
        (b"/sbin/init\0", ()): 1,
    }
    for (command_line, arguments), code in asked.items():
        first.write_bytes(command_line)
        assert main(list(arguments), first_process=first) == code, (command_line, arguments)
    assert main([], first_process=tmp_path / "absent") == 1
    assert '"503"' in capsys.readouterr().err.splitlines()[-1]
    for each in (daemon, worker, platform):
        each.server.stop()


@pytest.mark.parametrize("port", ["0", "x", "65536", "-1"])
def test_health_at_a_port_nobody_can_know_is_refused_by_the_variable(monkeypatch, capsys, port):
    monkeypatch.setenv("WATCHER_HTTP__PORT", port)
    assert main([]) == 2
    assert f"WATCHER_HTTP__PORT='{port}'" in capsys.readouterr().err


def test_health_is_asked_without_the_libraries_of_the_other_commands(tmp_path):
    asked = "import sys; sys.argv[1:] = ['health']; from watcher.__main__ import main\n"
    looked = "try: main()\nexcept SystemExit as end: print(end.code, sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", asked + looked],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "WATCHER_HTTP__PORT": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("1 [")
    for heavy in ("typer", "sqlalchemy", "pydantic", "numpy", "starlette", "requests"):
        assert f"'{heavy}'" not in done.stdout
