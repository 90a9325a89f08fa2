"""Sets of bytes: what is there, what is missing."""

import random

from actors.ranges import Ranges


def test_ranges_that_touch_become_one() -> None:
    found = Ranges([(10, 20), (0, 5), (5, 10), (30, 40)])

    assert list(found) == [(0, 20), (30, 40)]
    assert (found.total, found.prefix, found.end) == (30, 20, 40)


def test_bytes_that_are_there_twice_count_once() -> None:
    assert list(Ranges([(0, 10), (5, 15), (2, 3)])) == [(0, 15)]


def test_an_empty_range_adds_nothing() -> None:
    found = Ranges([(5, 5), (7, 6)])

    assert list(found) == []
    assert (found.total, found.prefix, found.end) == (0, 0, 0)


def test_the_first_gap_ends_where_the_next_bytes_begin() -> None:
    assert Ranges().first_gap(10) == (0, 10)
    assert Ranges([(3, 5)]).first_gap(10) == (0, 3)
    assert Ranges([(0, 3), (5, 7)]).first_gap(10) == (3, 5)
    assert Ranges([(0, 3)]).first_gap(10) == (3, 10)
    assert Ranges([(0, 10)]).first_gap(10) is None


def test_what_lies_behind_a_place_is_cut_off() -> None:
    assert list(Ranges([(0, 3), (5, 9), (12, 14)]).within(7)) == [(0, 3), (5, 7)]


def test_ranges_equal_a_set_of_bytes_whatever_is_added() -> None:
    dice = random.Random(5)
    for _ in range(200):
        found, model = Ranges(), set[int]()
        for _ in range(dice.randrange(12)):
            start = dice.randrange(40)
            end = start + dice.randrange(10)
            found.add(start, end)
            model |= set(range(start, end))

        assert {byte for start, end in found for byte in range(start, end)} == model
        assert found.total == len(model)
        assert all(end < start for (_, end), (start, _) in zip(found, list(found)[1:], strict=False))
        gap = found.first_gap(50)
        assert gap is not None
        assert gap[0] == min(set(range(51)) - model)
