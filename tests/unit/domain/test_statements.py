"""The chain of signed statements: whatever is done to it shows."""

from __future__ import annotations

import hashlib
import hmac

import msgspec
import pytest

from watcher.domain.errors import StatementError
from watcher.domain.statements import (
    VERSION,
    SignedStatement,
    Statement,
    compute_key_id,
    compute_names_digest,
    sign,
    split_keys,
    verify_chain,
)

KEY = "key of the test"


def build_chain(
    n: int = 4, *, watch: str = "gate", key: str = KEY, previous: str | None = None
) -> list[SignedStatement]:
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
            previous=chain[-1].hash if chain else previous,
        )
        chain.append(sign(statement, key=key))
    return chain


def test_chain_as_it_was_made_is_proven_day_by_day():
    assert [each.day for each in verify_chain(build_chain(), keys=[KEY])] == [
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
        list(verify_chain(chain, keys=[KEY]))


@pytest.mark.parametrize("order", [[0, 2, 3], [1, 2, 3], [0, 2, 1, 3], [0, 1, 1, 2, 3]])
def test_chain_with_a_link_left_out_moved_or_repeated_is_refused(order):
    chain = build_chain()
    with pytest.raises(StatementError, match="does not follow the one before it"):
        list(verify_chain([chain[number] for number in order], keys=[KEY]))


def test_chain_of_another_key_is_refused_by_the_id_of_that_key():
    other = "somebody else's"
    with pytest.raises(StatementError, match=f"'{compute_key_id(other)}', which is none of those given"):
        list(verify_chain(build_chain(key=other), keys=[KEY]))


def test_chain_whose_keys_changed_is_proven_by_all_of_them_and_by_no_fewer():
    chain = build_chain(2)
    chain += build_chain(2, key="the next", previous=chain[-1].hash)
    assert len(list(verify_chain(chain, keys=[KEY, "the next"]))) == 4
    with pytest.raises(StatementError, match="statement 3 says that it was signed with the key"):
        list(verify_chain(chain, keys=[KEY]))


def test_statement_that_names_a_known_key_and_was_signed_with_another_is_refused():
    (forged,) = build_chain(1, key="the next")
    body = forged.body.replace(compute_key_id("the next"), compute_key_id(KEY))
    with pytest.raises(StatementError, match="statement 1 is not the one that was signed"):
        list(verify_chain([msgspec.structs.replace(forged, body=body)], keys=[KEY, "the next"]))


def test_statement_of_version_1_which_names_no_key_is_proven():
    (signed,) = build_chain(1)
    body = signed.body.replace(f'"key_id":"{compute_key_id(KEY)}",', "").replace('"version":2', '"version":1')
    assert "key_id" not in body
    old = SignedStatement(
        body=body, signature=hmac.new(KEY.encode(), body.encode(), hashlib.sha256).hexdigest()
    )
    (proven,) = verify_chain([old], keys=["another", KEY])
    assert (proven.version, proven.key_id) == (1, None)
    with pytest.raises(StatementError, match="statement 1 is not the one that was signed"):
        list(verify_chain([old], keys=["another"]))


def test_id_of_a_key_tells_nothing_of_it_but_which_one_it_is():
    assert compute_key_id(KEY) == compute_key_id(KEY) != compute_key_id("the next")
    assert KEY not in compute_key_id(KEY)


def test_signature_of_one_statement_does_not_fit_another():
    chain = build_chain()
    chain[1] = msgspec.structs.replace(chain[1], signature=chain[0].signature)
    with pytest.raises(StatementError, match="statement 2"):
        list(verify_chain(chain, keys=[KEY]))


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


def test_keys_are_a_line_each_with_blanks_inside_but_not_around():
    assert split_keys(" a key of words \r\n\n\tanother\n") == ["a key of words", "another"]
    assert split_keys(" \n") == []
