"""Sets of sample positions as the protocol writes them: hexadecimal integers, least significant bit first.

Bit i stands for the sample at position i of the mapping. All operations are linear in the number of samples.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_HEX = re.compile(r"0[xX][0-9a-fA-F]+")


class BitMask:
    """An immutable set of positions.

    `BitMask.from_hex("0x59")` is {0, 3, 4, 6}. Masks have no fixed width: the empty set is `0x0`.
    """

    __slots__ = ("_bits",)

    def __init__(self, bits: int = 0) -> None:
        if bits < 0:
            raise ValueError(f"a mask cannot be negative, got {bits}")
        self._bits = bits

    @classmethod
    def from_hex(cls, text: str) -> BitMask:
        """Reads `0x...`; any case, leading zeros allowed.

        Raises:
            ValueError: the text is not a hexadecimal number with the prefix 0x.
        """
        if not _HEX.fullmatch(text):
            raise ValueError(f"not a bit mask: {text[:40]!r}; expected 0x and hexadecimal digits")
        return cls(int(text, 16))

    @classmethod
    def from_indices(cls, indices: Iterable[int]) -> BitMask:
        """The set of the given positions; repeats are harmless. Time and memory are linear in the largest position."""
        buffer = bytearray()
        for position in indices:
            if position < 0:
                raise ValueError(f"a position cannot be negative, got {position}")
            byte = position >> 3
            if byte >= len(buffer):
                buffer.extend(bytes(byte + 1 - len(buffer)))
            buffer[byte] |= 1 << (position & 7)
        return cls(int.from_bytes(buffer, "little"))

    @classmethod
    def from_length(cls, length: int) -> BitMask:
        """All positions below `length`; 0 gives the empty set."""
        if length < 0:
            raise ValueError(f"a length cannot be negative, got {length}")
        return cls((1 << length) - 1)

    def to_hex(self) -> str:
        """`0x` and lower-case hexadecimal digits, as the protocol wants it."""
        return hex(self._bits)

    def to_bytes(self) -> bytes:
        """Little-endian bytes, without trailing zeros; position i is bit i % 8 of byte i // 8."""
        return self._bits.to_bytes((self._bits.bit_length() + 7) // 8, "little")

    def __iter__(self) -> Iterator[int]:
        """The positions, ascending."""
        for base, byte in enumerate(self.to_bytes()):
            value = byte
            while value:
                low = value & -value
                yield base * 8 + low.bit_length() - 1
                value ^= low

    def __len__(self) -> int:
        return self._bits.bit_count()

    def __bool__(self) -> bool:
        return self._bits != 0

    def __contains__(self, position: int) -> bool:
        return position >= 0 and bool(self._bits >> position & 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BitMask) and self._bits == other._bits

    def __hash__(self) -> int:
        return hash(self._bits)

    def __or__(self, other: BitMask) -> BitMask:
        return BitMask(self._bits | other._bits)

    def __and__(self, other: BitMask) -> BitMask:
        return BitMask(self._bits & other._bits)

    def __sub__(self, other: BitMask) -> BitMask:
        return BitMask(self._bits & ~other._bits)

    def complement(self, length: int) -> BitMask:
        """The positions below `length` that are not in the set.

        Raises:
            ValueError: the mask reaches beyond `length`.
        """
        self.check_fits(length)
        return BitMask(self._bits ^ ((1 << length) - 1))

    def check_fits(self, length: int) -> None:
        """Raises ValueError if a position is at or beyond `length`."""
        if self._bits.bit_length() > length:
            raise ValueError(
                f"the mask names position {self._bits.bit_length() - 1}, but there are only {length} samples"
            )

    def __repr__(self) -> str:
        text = self.to_hex()
        return f"BitMask({text if len(text) <= 40 else text[:37] + '...'})"
