"""The chain of signed statements: whatever is done to it shows."""

from __future__ import annotations

import msgspec
import pytest

from watcher.domain.errors import StatementError
from watcher.domain.statements import (
    VERSION,
    SignedStatement,
    Statement,
    compute_names_digest,
    sign,
    verify_chain,
)

KEY = "key of the test"


def build_chain(n: int = 4, *, watch: str = "gate", key: str = KEY) -> list[SignedStatement]:
    chain: list[SignedStatement] = []
    for number in range(n):
        statement = Statement(
            version=VERSION,
            watch=watch,
            server="https://api.example.com",
            dataset_id="0" * 24,
            day=f"2026-11-{number + 1:02d}",
            made_ms=number,
            to_s=number,
            n_listed=number,
            listed={"done": number},
            samples={"done": number},
            n_missing=0,
            n_unexplained=0,
            n_remote=number,
            names_sha256=compute_names_digest([("a", "done")]),
            previous=chain[-1].hash if chain else None,
        )
        chain.append(sign(statement, key=key))
    return chain


def test_chain_as_it_was_made_is_proven_day_by_day():
    assert [each.day for each in verify_chain(build_chain(), key=KEY)] == [
        "2026-11-01",
        "2026-11-02",
        "2026-11-03",
        "2026-11-04",
    ]


def test_chain_with_a_changed_count_is_refused_by_its_place():
    chain = build_chain()
    changed = chain[2].body.replace('"n_missing":0', '"n_missing":1')
    assert changed != chain[2].body
    chain[2] = msgspec.structs.replace(chain[2], body=changed)
    with pytest.raises(StatementError, match="statement 3 is not the one that was signed"):
        list(verify_chain(chain, key=KEY))


@pytest.mark.parametrize("order", [[0, 2, 3], [1, 2, 3], [0, 2, 1, 3], [0, 1, 1, 2, 3]])
def test_chain_with_a_link_left_out_moved_or_repeated_is_refused(order):
    chain = build_chain()
    with pytest.raises(StatementError, match="does not follow the one before it"):
        list(verify_chain([chain[number] for number in order], key=KEY))


def test_chain_of_another_key_is_refused():
    with pytest.raises(StatementError, match="signed with another key"):
        list(verify_chain(build_chain(key="somebody else's"), key=KEY))


def test_signature_of_one_statement_does_not_fit_another():
    chain = build_chain()
    chain[1] = msgspec.structs.replace(chain[1], signature=chain[0].signature)
    with pytest.raises(StatementError, match="statement 2"):
        list(verify_chain(chain, key=KEY))


def test_digest_tells_names_and_states_apart_wherever_they_are_cut():
    digests = {
        compute_names_digest(rows)
        for rows in (
            [("a", "done")],
            [("a", "gone")],
            [("b", "done")],
            [("a", "done"), ("b", "done")],
            [("ad", "one")],
            [],
        )
    }
    assert len(digests) == 6
