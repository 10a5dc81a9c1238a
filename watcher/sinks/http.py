"""One exchange with a receiver: the configured address and no other, a time limit for all of it, errors by class."""

from __future__ import annotations

from collections.abc import Mapping

from watcher.domain.clock import Clock
from watcher.domain.errors import RedirectRefusedError
from watcher.domain.redaction import redact
from watcher.lightly.answers import Answer, build_exception, read_answer
from watcher.lightly.connections import Connections
from watcher.lightly.trust import Trust
from watcher.sinks.place import describe_place


class Receiver:
    """A server that takes deliveries. Sharable between threads.

    Args:
        timeout_s: longest silence, and twice that for the whole exchange.
        trust: whose certificates are believed.
        secrets: never shown, should the receiver repeat them in an error.
    """

    def __init__(
        self,
        *,
        connect_timeout_s: float,
        timeout_s: float,
        trust: Trust,
        clock: Clock,
        secrets: tuple[str, ...] = (),
    ) -> None:
        self._connections = Connections(
            trust=trust,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=timeout_s,
            pool_size=4,
            clock=clock,
        )
        self._timeout_s = timeout_s
        self._clock = clock
        self._secrets = secrets

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, what: str
    ) -> Answer:
        """Sends one request and reads the whole answer; repeats nothing.

        Args:
            method: GET, POST, ...
            url: sent byte for byte.
            headers: sent besides `Host` and `Content-Length`.
            body: None for none.
            what: names the exchange in errors.

        Raises:
            ApiException: an answer that is no success; see its `status`.
            RedirectRefusedError: a redirect.
            NotSentError: nothing was sent.
            UnknownOutcomeError: no answer came in time; the receiver may have taken it.
        """
        sent = {**headers, "Accept-Encoding": "identity"}
        if body is not None:
            sent["Content-Length"] = str(len(body))
        response = self._connections.exchange(
            method,
            url,
            headers=sent,
            body=body,
            deadline_s=self._clock.monotonic_s() + 2 * self._timeout_s,
            what=what,
        )
        with response:
            answer = read_answer(response, what)
        if 300 <= answer.status < 400:
            raise RedirectRefusedError(
                f"{what}: the receiver redirects ({answer.status}) to "
                f"{describe_place(answer.headers.get('Location') or '')}; redirects are not followed: set the "
                "sink's URL to the final address"
            )
        if answer.status >= 400 or answer.status < 200:
            raise build_exception(
                answer, reason=response.reason or "", request=what, now_s=self._clock.now_s(), hide=self._hide
            )
        return answer

    def _hide(self, text: str) -> str:
        for secret in self._secrets:
            if secret:
                text = text.replace(secret, "***")
        return redact(text)
