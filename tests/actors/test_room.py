"""How many connections a process allows itself."""

import time

import pytest

from actors.room import ConnectionRoom, InstallRoom


def feed(room: ConnectionRoom, size: int) -> None:
    """Let a window end with so many bytes in it."""
    time.sleep(0.011)
    room.count(size)


def fill(room: ConnectionRoom) -> None:
    while room.take_another():
        pass


def room_of(**options: float) -> ConnectionRoom:
    return ConnectionRoom(most=12, first=4, window_seconds=0.01, **options)


def nothing() -> None:
    """Never give up."""


def test_few_connections_are_allowed_at_first() -> None:
    room = room_of()

    fill(room)

    assert (room.used, room.allowed) == (4, 4)


def test_more_are_allowed_for_as_long_as_that_brings_more() -> None:
    room = room_of()

    allowed = []
    for size in (10**6, 10**7, 10**8, 10**9):
        fill(room)
        feed(room, size)
        allowed.append(room.allowed)

    assert allowed == [6, 9, 12, 12]


def test_a_step_that_brings_nothing_is_taken_back_and_tried_again_later() -> None:
    room = room_of(hold_seconds=0.05)
    fill(room)
    feed(room, 10**6)
    fill(room)
    assert room.used == 6

    feed(room, 10**4)
    taken_back, is_crowded = room.allowed, room.is_crowded
    room.give_back()
    room.give_back()
    feed(room, 10**6)
    held = room.allowed
    time.sleep(0.05)
    feed(room, 10**6)

    assert (taken_back, is_crowded, held, room.allowed) == (4, True, 4, 6)


def test_room_that_is_not_used_does_not_grow() -> None:
    room = room_of()
    room.take(nothing)

    for size in (10**6, 10**7, 10**8):
        feed(room, size)

    assert room.allowed == 4


def test_each_file_has_one_by_right_up_to_the_limit() -> None:
    room = room_of()

    for _ in range(12):
        room.take(nothing)

    assert (room.used, room.take_another(), room.is_crowded) == (12, False, True)
    with pytest.raises(InterruptedError):
        room.take(_raise)
    assert room.used == 12


def _raise() -> None:
    raise InterruptedError


def test_an_overburdened_source_gets_fewer_connections() -> None:
    room = room_of()
    fill(room)

    room.ease()

    assert (room.allowed, room.is_crowded) == (2, True)


def test_an_install_uses_no_more_than_its_part_and_a_change_takes_effect_at_once() -> None:
    room = room_of()
    limits = [2]
    part = InstallRoom(room, at_most=lambda: limits[0])

    part.take(nothing)
    first = [part.take_another(), part.take_another()]
    limits[0] = 3
    second = [part.take_another(), part.take_another()]
    limits[0] = 1

    assert (first, second) == ([True, False], [True, False])
    assert (room.used, part.is_crowded) == (3, True)
    for _ in range(3):
        part.give_back()
    assert (room.used, part.is_crowded) == (0, False)
