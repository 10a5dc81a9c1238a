"""The tree of errors: the class alone says whether trying again can help."""

from __future__ import annotations

import re

import pytest

from watcher.domain import errors
from watcher.domain.errors import WatcherError, build_api_exception


def all_errors() -> list[type[WatcherError]]:
    kinds = [WatcherError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    return [kind for kind in kinds if kind.__module__ == errors.__name__]


def test_tree_in_the_docstring_names_every_error_with_its_parent_and_whether_it_is_retryable():
    drawn: dict[str, tuple[str, bool]] = {}
    stack: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"( {4}[ |`-]*)([A-Z]\w+(?:Error|Exception))\b", line)
        if match is None:
            continue
        depth, name = len(match[1]), match[2]
        while stack and stack[-1][0] >= depth:
            stack.pop()
        drawn[name] = (stack[-1][1] if stack else "", "(retryable)" in line)
        stack.append((depth, name))
    real = {kind.__name__: (kind.__bases__[0].__name__, kind.retryable) for kind in all_errors()}
    real["WatcherError"] = ("", False)
    # A subclass inherits the mark, which the drawing puts on the parent.
    for name, (parent, retryable) in real.items():
        if retryable and real.get(parent, ("", False))[1]:
            drawn[name] = (drawn[name][0], True)
    assert drawn == real


@pytest.mark.parametrize(
    ("status", "name", "retryable"),
    [
        (400, "ApiException", False),
        (401, "UnauthorizedException", False),
        (403, "ForbiddenException", False),
        (404, "NotFoundException", False),
        (409, "ApiException", False),
        (429, "TooManyRequestsException", True),
        (500, "ServiceException", True),
        (503, "ServiceException", True),
        (599, "ServiceException", True),
    ],
)
def test_api_exception_of_a_status_has_its_class(status, name, retryable):
    error = build_api_exception(status, "reason", retry_after_s=7.0)
    assert type(error).__name__ == name
    assert error.retryable is retryable
    assert error.retry_after_s == 7.0


def test_api_exception_tells_the_request_the_status_the_code_and_the_body():
    error = build_api_exception(
        409, "Conflict", body="it exists", code="TAG_EXISTS", request="POST /v1/x/{id}"
    )
    assert str(error) == "POST /v1/x/{id}: the server answered 409 Conflict [TAG_EXISTS]: it exists"
