"""The searcher for secrets in the output of processes finds what it should, and nothing else."""

from __future__ import annotations

import pytest

from tests.leaks import find_leaks


@pytest.mark.parametrize(
    "line",
    [
        "GET http://127.0.0.1:1/v1/datasets?token=abcdefgh1234",
        "http://127.0.0.1:1/files/a.jpg?e=17&s=b6e51df73aa01",
        "https://b.s3.amazonaws.com/a?X-Amz-Date=1&X-Amz-Signature=0123456789abcdef",
        "https://h/a?next=https%3A%2F%2Fh%3Fsig=0123456789",
        "Authorization: Bearer abcdefgh1234",
        "the token is my-own-token",
    ],
)
def test_secret_in_a_line_is_found(line):
    assert find_leaks(f'{{"event": "{line}"}}', secrets=["my-own-token"])


@pytest.mark.parametrize(
    "line",
    [
        "http://127.0.0.1:1/v1/datasets?***",
        "http://127.0.0.1:1/v1/datasets?token=***",
        "the server refuses the token: check LIGHTLY_TOKEN",
        "Authorization: Bearer ***",
        "sig=short",
    ],
)
def test_line_without_a_secret_is_left_alone(line):
    assert find_leaks(line, secrets=["my-own-token", "short"]) == []
