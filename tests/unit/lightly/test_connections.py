"""Certificates, forks, and addresses behind names."""

from __future__ import annotations

import multiprocessing
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.certificates import build_server_context, write_pair
from tests.unit.lightly.conftest import DATASET, TOKEN
from watcher.domain.errors import NotSentError
from watcher.lightly import ApiWorkflowClient, tags


@pytest.fixture
def https(tmp_path):
    """A server with a certificate that nobody signed; gives its address and the certificate's file."""
    pair = write_pair(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_args: object) -> None:
            pass

    class Quiet(HTTPServer):
        def handle_error(self, *_args: object) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    server.socket = build_server_context(pair).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}", pair[0]
    server.shutdown()
    server.server_close()
    thread.join()


def test_certificates_are_checked(https, connect):
    url, _ = https
    with pytest.raises(NotSentError, match=r"(?i)certificate") as caught:
        tags.fetch_tags(connect(url), dataset_id=DATASET)
    assert TOKEN not in str(caught.value)


def test_trusted_certificates_are_named_by_argument_and_by_variable(https, connect, monkeypatch):
    url, cert_path = https
    assert tags.fetch_tags(connect(url, ca_certs=cert_path), dataset_id=DATASET) == []
    monkeypatch.setenv("LIGHTLY_CA_CERTS", str(cert_path))
    monkeypatch.setenv("LIGHTLY_SERVER_LOCATION", url)
    client = ApiWorkflowClient(TOKEN, DATASET)
    assert client.get_all_tags() == []
    client.transport.close()


def test_certificates_for_another_name_are_refused(https, connect):
    url, cert_path = https
    with pytest.raises(NotSentError, match=r"(?i)hostname|certificate"):
        tags.fetch_tags(
            connect(url.replace("127.0.0.1", "localhost"), ca_certs=cert_path), dataset_id=DATASET
        )


def _ask(transport, answers) -> None:
    answers.put(tags.fetch_tags(transport, dataset_id=DATASET))


# Python warns of it from 3.12 on; forks by others are what the test is about.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_fork_gets_connections_of_its_own(start, connect):
    server = start(lambda _seen: [])
    transport = connect(server.url)
    tags.fetch_tags(transport, dataset_id=DATASET)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_ask, args=(transport, answers))
    child.start()
    assert answers.get(timeout=20) == []
    child.join(20)
    tags.fetch_tags(transport, dataset_id=DATASET)
    ports = [seen.client_port for seen in server.seen]
    assert ports[0] == ports[2]
    assert ports[1] != ports[0]
