"""The network between the real client and the model server: it delays, cuts, refuses, lies and loses.

It takes the place of the adapter below `Connections`, so everything above the sockets is the real code.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import requests
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPHeaderDict, HTTPResponse

from tests.simulation.loop import Crash, Loop, Process
from tests.simulation.remote import Answer, format_date
from tests.simulation.server import OBJECTS, Server
from watcher.lightly import connections
from watcher.lightly.transport import Transport

_READ_TIMEOUT_S = 60.0
# What may go wrong with one exchange; `lost` kinds come after the effect.
FAULTS = (
    "refused",
    "reset",
    "status 429",
    "status 500",
    "status 503",
    "timed out",
    "lost: reset",
    "lost: half a body",
    "lost: status 502",
    "lost: timed out",
    "lost: rubbish",
    "slow",
    "no date",
)


class Network:
    """The way to the server for one world; each process has its adapter."""

    def __init__(
        self,
        loop: Loop,
        server: Server,
        rng: random.Random,
        *,
        fault_rate: float,
        crash_rate: float,
        note: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._server = server
        self._rng = rng
        self._note = note
        self.fault_rate = fault_rate
        self.crash_rate = crash_rate

    def attach(self, transport: Transport, process: Process) -> None:
        """Leads all exchanges of a transport through here."""
        transport.connections._adapter = _Adapter(self, process)

    def exchange(self, process: Process, method: str, url: str, body: Any) -> Answer:
        """One exchange, with its fault if it has one; raises what `requests` would."""
        task = self._loop.current
        if process.n_open_transactions.get(task):
            self._server.violations.append(f"{method} {url} inside a transaction of the store")
        fault = self._rng.choice(FAULTS) if self._rng.random() < self.fault_rate else ""
        if fault == "lost: rubbish" and url.startswith(OBJECTS):
            fault = ""  # what is read there cannot be told from a broken object
        what = f"{method} {url.partition('?')[0]}"
        if fault:
            what = f"{what} ({fault})"
        self._loop.sleep(self._rng.choice((0.01, 0.05, 0.4)))
        connections._CALL.sent = fault != "refused"
        if fault in ("refused", "reset"):
            self._note(what)
            raise requests.ConnectionError("simulated")
        if fault == "timed out":
            self._note(what)
            self._wait(_READ_TIMEOUT_S)
            raise requests.ReadTimeout("simulated")
        if fault.startswith("status"):
            self._note(what)
            headers = {"Retry-After": str(self._rng.choice((1, 5, 30)))} if "429" in fault else {}
            return self._date(Answer(int(fault[-3:]), b'{"code":"SERVER"}', headers))
        sent = b"".join(iter(lambda: body.read(1 << 16), b"")) if hasattr(body, "read") else body or b""
        answer = self._server.handle(method, url, sent)
        self._note(f"{what} -> {answer.status} {answer.body[:60]!r}")
        if self._rng.random() < self.crash_rate:
            self._note("KILLED while it waited for the answer")
            raise Crash
        self._wait(self._rng.choice((0.0, 0.02, 0.3)) if fault != "slow" else self._rng.uniform(1, 50))
        if fault == "lost: reset":
            raise requests.ConnectionError("simulated")
        if fault == "lost: timed out":
            self._wait(_READ_TIMEOUT_S)
            raise requests.ReadTimeout("simulated")
        if fault == "lost: status 502":
            return self._date(Answer(502, b"<html>bad gateway</html>"))
        if fault == "lost: rubbish":
            return self._date(Answer(200, b"<html>please log in</html>", {"Content-Type": "text/html"}))
        if fault == "lost: half a body":
            answer.headers["Content-Length"] = str(len(answer.body))
            answer.body = answer.body[: len(answer.body) // 2]
        return answer if fault == "no date" else self._date(answer)

    def _wait(self, seconds: float) -> None:
        sent = connections._CALL.sent
        self._loop.sleep(seconds)
        connections._CALL.sent = sent  # other tasks share the thread

    def _date(self, answer: Answer) -> Answer:
        answer.headers["Date"] = format_date(self._server.now_s())
        return answer


class _Adapter:
    """What `Connections` sends its requests to."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process

    def send(self, request: requests.PreparedRequest, **_options: Any) -> requests.Response:
        if self._process.dead:
            raise Crash
        assert request.method is not None
        answer = self._network.exchange(
            self._process, request.method, connections._CALL.address, request.body
        )
        headers = HTTPHeaderDict(answer.headers)
        headers.setdefault("Content-Length", str(len(answer.body)))
        response = requests.Response()
        response.status_code = answer.status
        response.reason = "Simulated"
        response.headers = CaseInsensitiveDict(headers)
        response.raw = HTTPResponse(
            body=io.BytesIO(answer.body), headers=headers, status=answer.status, preload_content=False
        )
        return response

    def close(self) -> None:
        pass
