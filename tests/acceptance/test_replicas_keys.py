"""A key of the platform that changes under two replicas, processes of their own: nothing signed is refused meanwhile."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.acceptance.forge import Forge
from tests.acceptance.test_rotation import is_accepted, replace
from tests.integration.platform.caller import Caller
from tests.leaks import OUTPUTS
from tests.postgres import free_port
from tests.waiting import wait_for

pytestmark = pytest.mark.deep

TOKEN, WRONG = "the-token-of-two-replicas", "a-token-that-nobody-knows"
OLD, NEW = "0a" * 32, "1b" * 32


@dataclass
class Replica:
    pid: int
    url: str
    key: Path
    log: Path
    n_changes: int = 0

    def take_up(self, text: str) -> None:
        """The file changes, and a token that nobody knows makes the replica look at it."""
        replace(self.key, text)
        self.n_changes += 1
        wait_for(
            lambda: (
                not is_accepted(self.url, WRONG)
                and self.log.read_text().count('"secret.changed"') == self.n_changes
            ),
            what="the keys are taken up",
            explain=self.log.read_text,
        )


@pytest.fixture
def replicas(tmp_path, postgres_url):
    OUTPUTS.know(TOKEN, OLD, NEW)
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "in" / "a.jpg")
    forge, made = Forge(), []
    try:
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "key").write_text(OLD)
            port = free_port()
            pid = forge.start(
                [
                    "platform",
                    *("--port", str(port)),
                    *("--data-dir", str(folder / "data")),
                    *("--datasource-root", str(root)),
                ],
                environ={
                    "WATCHER_PLATFORM__TOKEN": TOKEN,
                    "WATCHER_PLATFORM__KEY_FILE": str(folder / "key"),
                    "WATCHER_PLATFORM__DATABASE_URL": postgres_url,
                    "WATCHER_LOG__FORMAT": "json",
                },
                out=folder / "out",
                log=folder / "log",
            )
            made.append(Replica(pid, f"http://127.0.0.1:{port}", folder / "key", folder / "log"))
            wait_for(
                lambda: is_accepted(made[-1].url, TOKEN),
                what="the replica knows its token",
                explain=made[-1].log.read_text,
            )
        yield made
    finally:
        for each in made:
            os.kill(each.pid, signal.SIGTERM)
        codes = [forge.wait(each.pid, limit_s=60) for each in made]
        for each, code in zip(made, codes, strict=True):
            if code is None:
                os.kill(each.pid, signal.SIGKILL)
        forge.close()
    assert codes == [0, 0]


def check_each_takes_what_the_other_signed(replicas: list[Replica], dataset: str) -> None:
    """A read URL and a cursor of each are good at the other."""
    for one, two in (replicas, replicas[::-1]):
        with Caller(one.url, TOKEN) as first, Caller(two.url, TOKEN) as second:
            page = first("GET", f"{dataset}/datasource/list")
            url = page["data"][0]["readUrl"].replace(one.url, two.url)
            assert requests.get(url, timeout=10).status_code == 200
            rest = second("GET", f"{dataset}/datasource/list", params={"cursor": page["cursor"]})
            assert rest["data"] == []


def test_key_changes_under_two_replicas_and_nothing_signed_is_refused(replicas):
    one = replicas[0]
    with Caller(one.url, TOKEN) as api:
        dataset = api.create_dataset()
        api.set_local(dataset, "in")
        by_old = api("GET", f"{dataset}/datasource/list")["data"][0]["readUrl"]
    check_each_takes_what_the_other_signed(replicas, dataset)
    for text in (f"{OLD}\n{NEW}", f"{NEW}\n{OLD}"):
        for each in replicas:
            each.take_up(text)
            check_each_takes_what_the_other_signed(replicas, dataset)
            assert requests.get(by_old, timeout=10).status_code == 200
    for each in replicas:
        each.take_up(NEW)
        check_each_takes_what_the_other_signed(replicas, dataset)
    for each in replicas:
        assert requests.get(by_old.replace(one.url, each.url), timeout=10).status_code == 403


def test_new_key_on_top_at_once_is_refused_by_the_replica_that_does_not_know_it_yet(replicas):
    """Why the new key is told below first: the order of `docs/control.md` is needed."""
    one, two = replicas
    with Caller(one.url, TOKEN) as api:
        dataset = api.create_dataset()
        api.set_local(dataset, "in")
        one.take_up(f"{NEW}\n{OLD}")
        url = api("GET", f"{dataset}/datasource/list")["data"][0]["readUrl"]
    assert requests.get(url, timeout=10).status_code == 200
    assert requests.get(url.replace(one.url, two.url), timeout=10).status_code == 403
