"""Certificates: one rule for the API, read URLs, embedding services, webhooks and Label Studio, over real TLS."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import certifi
import pytest

from tests.certificates import build_server_context, write_pair
from tests.receivers import Answer, Receiver, open_receiver
from tests.unit.sinks.conftest import Batch
from watcher.domain.backoff import Backoff
from watcher.domain.clock import SystemClock
from watcher.domain.delivery import LabelStudioRules, WebhookRules
from watcher.domain.errors import ConfigError, EmbedderUnavailableError, NotSentError
from watcher.domain.models import WatchConfig
from watcher.domain.step_rules import EmbedderKind, EmbedRules
from watcher.embedders.choosing import build_embedder
from watcher.lightly import tags
from watcher.lightly.transport import Transport
from watcher.lightly.trust import Trust, build_trust
from watcher.sinks.base import SinkParts
from watcher.sinks.label_studio_api import LabelStudioApi
from watcher.sinks.webhook import WebhookSink

ONCE = Backoff(base_s=0.01, cap_s=0.02, max_attempts=1)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_pair(tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    (tmp_path / "other").mkdir()
    return write_pair(tmp_path / "other")[0]


@pytest.fixture
def receiver(pair: tuple[Path, Path]) -> Iterator[Receiver]:
    with open_receiver(tls=build_server_context(pair)) as opened:
        yield opened


def ask_api(receiver: Receiver, root: Path, ca_certs: Path | None, only: Path | None) -> None:
    receiver.answers = [Answer(body=b"[]")]
    transport = Transport(server=_base(receiver), token="t0ken", ca_certs=ca_certs, retry=ONCE)
    assert only is None
    tags.fetch_tags(transport, dataset_id="d" * 24)


def read_picture(receiver: Receiver, root: Path, ca_certs: Path | None, only: Path | None) -> None:
    receiver.answers = [Answer(body=b"a picture")]
    transport = Transport(server="https://127.0.0.1:9", token="t0ken", ca_certs=ca_certs, retry=ONCE)
    assert only is None
    assert transport.read_url_bytes(receiver.url, max_bytes=100).body == b"a picture"


def post_webhook(receiver: Receiver, root: Path, ca_certs: Path | None, only: Path | None) -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    rules = WebhookRules(url=receiver.url, secret=secret, ca_certs=_text(only), timeout_s=5)
    WebhookSink(rules, _parts(root, ca_certs)).deliver(Batch(["a"]).handover())


def ask_label_studio(receiver: Receiver, root: Path, ca_certs: Path | None, only: Path | None) -> None:
    receiver.answers = [Answer(body=b'{"id": 7, "title": "Gate"}')]
    rules = LabelStudioRules(
        url=_base(receiver), token="legacy", project="7", ca_certs=_text(only), timeout_s=5
    )
    assert LabelStudioApi(rules, _parts(root, ca_certs)).fetch_project(7).id == 7


def embed(receiver: Receiver, root: Path, ca_certs: Path | None, only: Path | None) -> None:
    receiver.answers = [Answer(body=json.dumps({"vectors": [[1.0, 2.0]]}).encode())]
    rules = EmbedRules(
        kind=EmbedderKind.HTTP,
        url=receiver.url,
        version="v1",
        dim=2,
        time_limit_s=5,
        send_px=0,
        ca_certs=_text(only),
    )
    embedder = build_embedder(
        WatchConfig(name="gate", dataset="gate", embed=rules),
        work_dir=root,
        clock=SystemClock(),
        ca_certs=ca_certs,
    )
    assert embedder.embed_prepared([b"picture"]).tolist() == [[1.0, 2.0]]


def _base(receiver: Receiver) -> str:
    return receiver.url.removesuffix("/hook")


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _parts(root: Path, ca_certs: Path | None) -> SinkParts:
    return SinkParts(data_dir=root, work_dir=root, clock=SystemClock(), ca_certs=ca_certs)


Way = Callable[[Receiver, Path, Path | None, Path | None], None]
REFUSED = (NotSentError, EmbedderUnavailableError)
ways = pytest.mark.parametrize("way", [ask_api, read_picture, post_webhook, ask_label_studio, embed])
own_ways = pytest.mark.parametrize("way", [post_webhook, ask_label_studio, embed])


@ways
def test_certificate_that_no_known_authority_signed_is_refused(
    way: Way, receiver: Receiver, tmp_path: Path, other: Path
) -> None:
    for ca_certs in (None, other):
        with pytest.raises(REFUSED, match=r"(?i)certificate"):
            way(receiver, tmp_path, ca_certs, None)
    assert receiver.got == []


@ways
def test_authority_of_the_daemons_settings_counts_everywhere(
    way: Way, receiver: Receiver, tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    way(receiver, tmp_path, pair[0], None)
    assert receiver.got


@ways
def test_authority_of_the_daemons_settings_takes_nothing_from_the_usual_ones(
    way: Way,
    receiver: Receiver,
    tmp_path: Path,
    pair: tuple[Path, Path],
    other: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pair[0]))
    way(receiver, tmp_path, other, None)
    assert receiver.got


@own_ways
def test_own_authority_of_a_receiver_stands_instead_of_all_others(
    way: Way, receiver: Receiver, tmp_path: Path, pair: tuple[Path, Path], other: Path
) -> None:
    with pytest.raises(REFUSED, match=r"(?i)certificate"):
        way(receiver, tmp_path, pair[0], other)
    way(receiver, tmp_path, other, pair[0])
    assert receiver.got


def test_renewed_file_of_authorities_counts_for_the_next_connection(
    receiver: Receiver, tmp_path: Path, pair: tuple[Path, Path], other: Path
) -> None:
    named = tmp_path / "authorities.pem"
    named.write_bytes(other.read_bytes())
    transport = Transport(server=_base(receiver), token="t0ken", ca_certs=named, retry=ONCE)
    with pytest.raises(NotSentError):
        tags.fetch_tags(transport, dataset_id="d" * 24)
    named.write_text("# Z\u00fcrich\n" + pair[0].read_text())
    receiver.answers = [Answer(body=b"[]")]
    assert tags.fetch_tags(transport, dataset_id="d" * 24) == []


def test_rule_prefers_the_own_file_then_the_variables_then_what_comes_with_requests(
    tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, usual = str(other), certifi.where()
    assert build_trust() == Trust(usual=True)
    assert build_trust(besides=other) == Trust(usual=True, besides=own)
    assert build_trust(only=own, besides=usual) == Trust(usual=own)
    monkeypatch.setenv("CURL_CA_BUNDLE", own)
    assert build_trust() == Trust(usual=own)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", usual)
    assert build_trust(besides=own) == Trust(usual=usual, besides=own)


@pytest.mark.parametrize(
    ("name", "variable"), [("only", "CA_CERTS of this receiver"), ("besides", "LIGHTLY_CA_CERTS")]
)
def test_file_of_authorities_that_is_not_there_is_refused_by_name(name: str, variable: str) -> None:
    with pytest.raises(ConfigError, match=f"'/no/such.pem'; check {variable}"):
        build_trust(**{name: "/no/such.pem"})
