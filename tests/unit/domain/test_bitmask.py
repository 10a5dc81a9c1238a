"""Sets of positions as hexadecimal numbers: everything a set of integers can do, and the same answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.domain.bitmask import BitMask

positions = st.sets(st.integers(0, 5000), max_size=200)


def test_mask_of_the_protocols_example_reads_least_significant_bit_first():
    assert list(BitMask.from_hex("0x59")) == [0, 3, 4, 6]
    assert BitMask.from_indices([0, 3, 4, 6]).to_hex() == "0x59"


@given(positions)
def test_mask_written_and_read_again_is_the_same_set(indices):
    mask = BitMask.from_indices(indices)
    again = BitMask.from_hex(mask.to_hex())
    assert again == mask
    assert hash(again) == hash(mask)
    assert list(again) == sorted(indices)
    assert len(again) == len(indices)
    assert bool(again) == bool(indices)


@given(positions, positions)
def test_masks_combine_as_sets_do(left, right):
    a, b = BitMask.from_indices(left), BitMask.from_indices(right)
    assert set(a | b) == left | right
    assert set(a & b) == left & right
    assert set(a - b) == left - right


@given(positions, st.integers(-5, 6000))
def test_mask_knows_its_members(indices, position):
    assert (position in BitMask.from_indices(indices)) == (position in indices)


@given(positions, st.integers(5001, 6000))
def test_mask_complement_holds_exactly_the_others(indices, length):
    mask = BitMask.from_indices(indices)
    assert set(mask.complement(length)) == set(range(length)) - indices
    assert mask.complement(length).complement(length) == mask
    assert mask | mask.complement(length) == BitMask.from_length(length)


@given(st.integers(0, 2**2000), st.integers(0, 40), st.booleans())
def test_mask_in_any_spelling_of_the_same_number_is_equal(bits, zeros, upper):
    digits = "0" * zeros + f"{bits:x}"
    spelled = f"0X{digits.upper()}" if upper else f"0x{digits}"
    assert BitMask.from_hex(spelled) == BitMask(bits)
    assert BitMask.from_hex(spelled).to_hex() == f"0x{bits:x}"


@given(positions)
def test_mask_bytes_hold_bit_i_at_byte_i_by_eight(indices):
    data = BitMask.from_indices(indices).to_bytes()
    assert {i for i in range(len(data) * 8) if data[i // 8] >> i % 8 & 1} == indices


@pytest.mark.parametrize(
    "text", ["", "0x", "59", "0x5g", "-0x1", "0x1 ", " 0x1", "0x1\n", "0x_1", "0x1_0", "1x0"]
)
def test_mask_that_is_no_hexadecimal_number_is_refused(text):
    with pytest.raises(ValueError, match="not a bit mask"):
        BitMask.from_hex(text)


@pytest.mark.parametrize(
    "make", [lambda: BitMask(-1), lambda: BitMask.from_indices([3, -1]), lambda: BitMask.from_length(-1)]
)
def test_mask_of_negative_things_is_refused(make):
    with pytest.raises(ValueError, match="cannot be negative"):
        make()


def test_mask_that_reaches_beyond_the_samples_is_refused_by_position():
    mask = BitMask.from_indices([2, 7])
    mask.check_fits(8)
    with pytest.raises(ValueError, match="position 7, but there are only 7 samples"):
        mask.check_fits(7)
    with pytest.raises(ValueError, match="position 7"):
        mask.complement(7)


def test_mask_of_nothing_is_zero():
    assert BitMask.from_indices([]).to_hex() == "0x0"
    assert not BitMask.from_hex("0x0000")
    assert list(BitMask.from_length(0)) == []


def test_mask_of_a_million_samples_is_read_and_walked_in_moderate_time():
    mask = BitMask.from_length(1_000_000)
    assert len(BitMask.from_hex(mask.to_hex())) == 1_000_000
    assert sum(1 for _ in mask) == 1_000_000


def test_mask_shown_to_a_person_is_short():
    assert len(repr(BitMask.from_length(100_000))) < 60
