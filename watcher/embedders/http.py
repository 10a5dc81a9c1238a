"""Vectors from an HTTP service of the user's; `docs/pipeline.md` tells the protocol."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import requests

from watcher import __version__
from watcher.domain.clock import Clock
from watcher.domain.errors import EmbedderAnswerError, EmbedderUnavailableError, TransportError
from watcher.domain.redaction import redact
from watcher.domain.step_rules import EmbedRules
from watcher.embedders.answered import check_vector
from watcher.embedders.descriptor_facts import compute_grey_suffix
from watcher.embedders.shrinking import shrink_picture
from watcher.images import ImageLimits
from watcher.lightly.answers import parse_retry_after_s
from watcher.lightly.connections import Connections, read_chunk
from watcher.lightly.trust import build_trust

if TYPE_CHECKING:
    from watcher.embedders.base import Vectors

_CONNECT_TIMEOUT_S = 5.0
_BYTES_A_NUMBER = 40
_SPARE_BYTES = 65536
_RETRIED = frozenset({401, 403, 408, 425, 429})


class HttpEmbedder:
    """POSTs `{"images": [base64, ...]}` and reads `{"vectors": [[...], ...]}`, null for a picture it refuses."""

    def __init__(
        self, rules: EmbedRules, *, limits: ImageLimits, clock: Clock, ca_certs: Path | None = None
    ) -> None:
        assert rules.url is not None
        assert rules.dim is not None
        self._rules = rules
        self._url = rules.url
        self._token = rules.token
        self._limits = limits
        self._clock = clock
        self._connections = Connections(
            trust=build_trust(only=rules.ca_certs, besides=ca_certs),
            connect_timeout_s=_CONNECT_TIMEOUT_S,
            read_timeout_s=rules.time_limit_s,
            pool_size=4,
            clock=clock,
        )
        self._what = f"the embedding service at {redact(rules.url)}"
        self.name = f"http-{rules.version}{compute_grey_suffix(limits.grey_bits)}"
        self.dim = rules.dim
        self.batch_size = rules.batch_size

    def replace_token(self, token: str | None) -> None:
        """Sends another token from the next request on."""
        self._token = token

    def prepare(self, content: bytes) -> bytes:
        """The file that the service will get; see `shrink_picture`."""
        return shrink_picture(content, side_px=self._rules.send_px, limits=self._limits)

    def embed_prepared(self, prepared: Sequence[bytes]) -> Vectors:
        """Vectors of shape (len(prepared), dim); NaN where the service answered null.

        Raises:
            EmbedderUnavailableError: no answer in time, 401, 403, 408, 425, 429 or 5xx.
            EmbedderAnswerError: rubbish, or any other status.
        """
        vectors = np.full((len(prepared), self.dim), np.nan, dtype=np.float32)
        for start in range(0, len(prepared), self.batch_size):
            part = prepared[start : start + self.batch_size]
            for place, value in enumerate(self._ask(part), start):
                if value is not None:
                    vectors[place] = check_vector(value, dim=self.dim, what=self._what)
        return vectors

    def _ask(self, part: Sequence[bytes]) -> list[Any]:
        body = msgspec.json.encode(
            {"images": [base64.b64encode(content).decode("ascii") for content in part]}
        )
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "User-Agent": f"datasource-watcher/{__version__}",
        }
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            response = self._connections.exchange(
                "POST",
                self._url,
                headers=headers,
                body=body,
                deadline_s=self._clock.monotonic_s() + self._rules.time_limit_s,
                what=self._what,
            )
            with response:
                answer = self._read_body(response, len(part))
        except TransportError as error:
            raise EmbedderUnavailableError(str(error)) from error
        self._check_status(response, answer)
        try:
            vectors = msgspec.json.decode(answer)["vectors"]
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
            vectors = None
        if not isinstance(vectors, list) or len(vectors) != len(part):
            raise EmbedderAnswerError(
                f'{self._what} did not answer {{"vectors": [...]}} with {len(part)} entries, but '
                f"{answer[:100].decode('utf-8', 'replace')!r}"
            )
        return vectors

    def _read_body(self, response: requests.Response, n: int) -> bytes:
        most = n * self.dim * _BYTES_A_NUMBER + _SPARE_BYTES
        body = read_chunk(response, most + 1, what=self._what)
        if len(body) > most:
            raise EmbedderAnswerError(f"{self._what} answered more than {most} bytes for {n} pictures")
        return body

    def _check_status(self, response: requests.Response, answer: bytes) -> None:
        status = response.status_code
        if status == 200:
            return
        text = redact(answer[:300].decode("utf-8", "replace"))
        if status >= 500 or status in _RETRIED:
            unavailable = EmbedderUnavailableError(f"{self._what} answered {status}: {text}")
            unavailable.retry_after_s = parse_retry_after_s(response.headers, now_s=self._clock.now_s())
            raise unavailable
        raise EmbedderAnswerError(f"{self._what} answered {status}, not 200: {text}")
