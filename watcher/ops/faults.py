"""The one form in which the control API refuses: a status, a code for programs, a text for people."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from watcher.ops.parts import build_json


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Body of every answer that is no success.

    Attributes:
        error: what is wrong and the way out, for people.
        code: the same for programs; one of a closed set.
    """

    error: str
    code: str


class Fault(Exception):  # noqa: N818 - an answer, not a failure of the program
    """Ends a request with that answer."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code

    def build_answer(self) -> Response:
        """The answer as JSON."""
        answer = build_json(Problem(error=str(self), code=self.code), status=self.status)
        if self.status == 401:
            answer.headers["WWW-Authenticate"] = "Bearer"
        return answer
