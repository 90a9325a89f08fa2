"""Ranges of a file: which bytes are there, and what is missing between them. Pure.

A range is (start, end): its first byte and the one behind its last.
"""

from collections.abc import Iterable, Iterator


class Ranges:
    """A set of bytes, kept as ranges that neither touch nor overlap, in order."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._ranges: list[tuple[int, int]] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._ranges)

    @property
    def total(self) -> int:
        """How many bytes there are."""
        return sum(end - start for start, end in self._ranges)

    @property
    def prefix(self) -> int:
        """How many bytes there are from the file's beginning on, without a gap."""
        return self._ranges[0][1] if self._ranges and self._ranges[0][0] == 0 else 0

    @property
    def end(self) -> int:
        """The place behind the last byte that is there."""
        return self._ranges[-1][1] if self._ranges else 0

    def add(self, start: int, end: int) -> None:
        """Put bytes in; those that are there already count once."""
        if start >= end:
            return
        apart = [one for one in self._ranges if one[1] < start or one[0] > end]
        touched = [one for one in self._ranges if not (one[1] < start or one[0] > end)]
        joined = (min([start, *(one[0] for one in touched)]), max([end, *(one[1] for one in touched)]))
        self._ranges = sorted([*apart, joined])

    def within(self, size: int) -> "Ranges":
        """Return what lies before a place."""
        return Ranges((start, min(end, size)) for start, end in self._ranges if start < size)

    def first_gap(self, size: int) -> tuple[int, int] | None:
        """Return the first range that is missing of a file of this size; None when nothing is."""
        at = self.prefix
        if at >= size:
            return None
        behind = [start for start, _ in self._ranges if start > at]
        return at, min([size, *behind])
