"""Names of files are opaque; refused are only those that leave the datasource or that no store can hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.domain.names import can_be_stored, explain_bad_name

parts = st.text(
    st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda part: part not in {".", ".."})


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg",
        "with space.jpg",
        " leading and trailing ",
        "1+1=2.png",
        "100%25 of it%.jpg",
        "日本/写真 ①.jpg",
        "e\u0301 and \u00e9.jpg",
        ".hidden/.jpg",
        "...",
        "a..b/c..",
        "line\nbreak.jpg",
        "tab\tquote'\"`\\.jpg",
        "a//b.jpg",
        "x" * 1024,
    ],
)
def test_name_of_an_odd_kind_is_accepted(name):
    assert explain_bad_name(name) is None


@given(st.lists(parts, min_size=1, max_size=8).map("/".join))
def test_name_made_of_any_parts_but_dots_is_accepted(name):
    assert explain_bad_name(name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("../secret.jpg", "dot parts"),
        ("a/../../b.jpg", "dot parts"),
        ("a/..", "dot parts"),
        ("./a.jpg", "dot parts"),
        ("a/./b.jpg", "dot parts"),
        ("a\x00.jpg", "NUL"),
        ("x" * 1025, "1025 characters"),
        ("写" * 683, "more than 2048 bytes"),
        ("half \ud83e of a fox.jpg", "no Unicode text"),
    ],
)
def test_name_that_leaves_the_datasource_or_fits_no_store_is_refused_with_the_reason(name, reason):
    assert reason in explain_bad_name(name)


@given(st.lists(parts, max_size=3), st.sampled_from([".", ".."]), st.lists(parts, max_size=3))
def test_name_with_a_dot_part_anywhere_is_refused(before, dots, after):
    assert explain_bad_name("/".join([*before, dots, *after])) is not None


@pytest.mark.parametrize("name", ["a.jpg", "../a.jpg", "x" * 2048, "写" * 682])
def test_name_refused_or_not_can_be_stored_while_it_fits_an_index(name):
    assert can_be_stored(name)


@pytest.mark.parametrize("name", ["", "a\x00", "x" * 2049, "写" * 683, "\ud83e"])
def test_name_that_no_store_can_hold_is_told_apart(name):
    assert not can_be_stored(name)
    assert explain_bad_name(name) is not None
