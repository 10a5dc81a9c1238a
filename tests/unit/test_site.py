"""One address for everything, or two; TLS from files, renewed while it serves."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from tests.certificates import write_pair
from watcher.domain.errors import ConfigError, NotSentError
from watcher.ops.control import Control
from watcher.serving import ThreadedServer
from watcher.settings.root import load_settings

# Nobody reaches this machine by it.
ELSEWHERE = "192.0.2.1"


async def answer(scope, receive, send) -> None:
    body = b'{"status": "done over %s"}' % scope["scheme"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def build(tls: tuple[Path, Path] | None) -> ThreadedServer:
    return ThreadedServer(answer, host="127.0.0.1", port=0, name="page", setting="X", tls=tls)


def read_serial(server: ThreadedServer) -> int:
    pem = ssl.get_server_certificate(("127.0.0.1", server.port))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def test_command_reaches_a_daemon_with_tls_by_its_own_certificate_and_no_other(tmp_path):
    pair = write_pair(tmp_path, ip=ELSEWHERE)
    (tmp_path / "other").mkdir()
    other, _ = write_pair(tmp_path / "other", ip=ELSEWHERE)
    server = build(pair)
    server.start()
    try:
        assert server.url.startswith("https://")
        control = Control(url=server.url, token="t", cert_file=str(pair[0]))
        assert control.request("gate", "poll") == "done over https"
        with pytest.raises(NotSentError):
            Control(url=server.url, token="t", cert_file=str(other)).request("gate", "poll")
        with pytest.raises(NotSentError):
            Control(url=server.url, token="t").request("gate", "poll")
    finally:
        server.stop()


def test_renewed_certificate_is_served_without_a_restart_and_a_bad_one_is_not(tmp_path):
    pair = write_pair(tmp_path, ip=ELSEWHERE)
    server = build(pair)
    server.start()
    try:
        first = read_serial(server)
        write_pair(tmp_path, ip=ELSEWHERE)
        server.reload_tls()
        second = read_serial(server)
        assert second != first
        good = pair[0].read_bytes()
        (tmp_path / "other").mkdir()
        pair[0].write_bytes(write_pair(tmp_path / "other", ip=ELSEWHERE)[0].read_bytes())
        with pytest.raises(ConfigError):
            server.reload_tls()
        assert read_serial(server) == second
        pair[0].write_bytes(good)
        server.reload_tls()
        assert read_serial(server) == second
    finally:
        server.stop()


@pytest.mark.parametrize("wrong", ["gone", "no PEM", "passphrase"])
def test_certificate_that_cannot_be_used_is_named_at_the_start(tmp_path, wrong):
    cert, key = write_pair(tmp_path, ip=ELSEWHERE, passphrase=b"hush-hush" if wrong == "passphrase" else None)
    if wrong == "gone":
        cert.unlink()
    if wrong == "no PEM":
        cert.write_text("no certificate")
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        build((cert, key))
    assert str(cert) in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"WATCHER_HTTP__TLS_CERT_FILE": "c.pem"}, ["TLS_KEY_FILE"]),
        ({"WATCHER_CONTROL__HOST": "127.0.0.1"}, ["WATCHER_CONTROL__PORT"]),
        ({"WATCHER_CONTROL__PORT": "9000", "WATCHER_HTTP__PORT": "9000"}, ["both 9000"]),
        ({"WATCHER_CONTROL__TOKEN": "hush"}, ["WATCHER_CONTROL__TOKEN: "]),
        (
            {
                "WATCHER_CONTROL__TOKEN_FILE": "/nowhere/token",
                "WATCHER_CONTROL__NAME": "two words",
                "WATCHER_CONTROL__PORT": "70000",
                "WATCHER_HTTP__TLS_KEY_FILE": "k.pem",
                "WATCHER_HTTP__PROT": "1",
                "WATCHER_RUNS__WORKERS": "0",
            },
            [
                "/nowhere/token",
                "CONTROL__NAME",
                "CONTROL__PORT",
                "TLS_CERT_FILE",
                "HTTP__PORT?",
                "RUNS__WORKERS",
            ],
        ),
    ],
)
def test_settings_that_are_wrong_are_all_named_in_one_message(environ, named):
    with pytest.raises(ConfigError) as caught:
        load_settings(environ)
    for part in named:
        assert part in str(caught.value)
    assert "hush" not in str(caught.value)


def test_address_of_control_that_is_taken_names_its_setting(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = ThreadedServer(
            answer, host="127.0.0.1", port=port, name="control", setting="WATCHER_CONTROL__PORT"
        )
        with pytest.raises(ConfigError, match="WATCHER_CONTROL__PORT"):
            server.start()
