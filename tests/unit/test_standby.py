"""A process that waits for the lead: what hangs meanwhile is waited for elsewhere, or not for ever."""

from __future__ import annotations

import random
import threading
import time

from tests.builders import ManualClock
from tests.unit.lightly.servers import Reply, serve
from tests.waiting import wait_for
from watcher.domain.backoff import Backoff
from watcher.leadership import Leadership
from watcher.lightly.transport import Transport
from watcher.ops.health import AccessWatch
from watcher.standby import ServerInquiry, release_in_time


def test_server_that_hangs_is_asked_once_and_keeps_nobody_waiting():
    answering, asked = threading.Event(), []

    def answer(seen):
        asked.append(seen)
        answering.wait(30)
        return Reply(body="1.2.0")

    with serve(answer) as server:
        access = AccessWatch(ManualClock())
        transport = Transport(
            server=server.url,
            token="t0ken",
            retry=Backoff(base_s=0.01, cap_s=0.02, max_attempts=1),
            rng=random.Random(1),
            observer=lambda seen: access.observe(endpoint=seen.endpoint, code=seen.code),
        )
        inquiry = ServerInquiry(transport, access)
        begun_s = time.monotonic()
        inquiry.begin()
        wait_for(lambda: asked, what="it is asked")
        inquiry.begin()
        assert time.monotonic() - begun_s < 20
        answering.set()
        wait_for(lambda: access.get().last_ok_s is not None, what="its answer is known")
        inquiry.begin()
        transport.close()
    assert len(asked) == 1


class HangingLeadership(Leadership):
    def __init__(self, store_answers: threading.Event) -> None:
        self._answers = store_answers
        self._epoch = 7

    def release(self) -> None:
        self._answers.wait(30)


def test_end_of_a_process_does_not_wait_for_a_store_that_hangs(caplog, capsys):
    answers, begun_s = threading.Event(), time.monotonic()
    release_in_time(HangingLeadership(answers), limit_s=0.05)
    assert time.monotonic() - begun_s < 20
    answers.set()
    assert "leadership.not_given_up" in capsys.readouterr().out
