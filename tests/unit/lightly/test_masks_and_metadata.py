from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.domain.bitmask import BitMask
from watcher.domain.errors import DatasetError
from watcher.lightly.workflows.download import build_target_path, select_by_mask
from watcher.lightly.workflows.metadata import (
    format_custom_metadata,
    index_custom_metadata,
    index_custom_metadata_by_filename,
)

POSITIONS = st.sets(st.integers(0, 400))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(POSITIONS, st.integers(0, 20))
def test_select_by_mask_is_the_names_at_the_positions(positions, spare):
    names = [f"n{i}" for i in range(max(positions, default=-1) + 1 + spare)]
    mask = BitMask.from_indices(positions)
    assert select_by_mask(mask.to_hex(), names) == [names[i] for i in sorted(positions)]


@given(POSITIONS)
def test_select_by_mask_refuses_masks_beyond_the_names(positions):
    names = [f"n{i}" for i in range(max(positions, default=0))]
    mask = BitMask.from_indices({*positions, len(names)})
    with pytest.raises(DatasetError, match="there are only"):
        select_by_mask(mask.to_hex(), names)


@given(POSITIONS, POSITIONS)
def test_masks_are_sets(one, other):
    a, b = BitMask.from_indices(one), BitMask.from_indices(other)
    assert set(a | b) == one | other
    assert set(a & b) == one & other
    assert set(a - b) == one - other
    assert set(a.complement(401)) == set(range(401)) - one
    assert BitMask.from_hex(a.to_hex()) == a
    assert len(a) == len(one)


@pytest.mark.parametrize("text", ["", "0x", "12", "-0x1", "0x1g", "0b11", "0x 1"])
def test_texts_that_are_no_mask_are_refused(text):
    with pytest.raises(DatasetError, match="not a bit mask"):
        select_by_mask(text, ["a"])


@given(
    st.lists(
        st.tuples(
            st.text(max_size=10), st.dictionaries(st.text(max_size=4).filter(lambda k: k != "image_id"), JSON)
        ),
        unique_by=lambda pair: pair[0],
        max_size=6,
    )
)
def test_metadata_round_trip(pairs):
    formatted = format_custom_metadata(pairs)
    index = index_custom_metadata(formatted)
    assert index == {name: {**entry, "image_id": number} for number, (name, entry) in enumerate(pairs)}
    assert index_custom_metadata_by_filename([name for name, _ in pairs], formatted) == index


@pytest.mark.parametrize(
    "name", ["a.png", "sub/dir/a b+%ü.png", "...", "..a", "a..b", ".hidden/x", "-", "~", "C:x.png"]
)
def test_target_paths_lie_below_the_folder(tmp_path, name):
    assert build_target_path(tmp_path, name).is_relative_to(tmp_path)


@given(st.text(max_size=30))
def test_target_paths_never_leave_the_folder(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp()
    try:
        path = build_target_path(folder, name)
    except DatasetError:
        return
    assert path.resolve().is_relative_to(folder.resolve())
    assert path.resolve() != folder.resolve()
