"""How long calls wait for each other, turn by turn of the event loop."""

from __future__ import annotations

import asyncio

import pytest

from services.serving.gathering import BUSY_S, QUIET_TURNS, Gathering


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("pause_s", "together"), [(0.0, [["a"], ["b", "c"]]), (BUSY_S, [["a"], ["b"], ["c"]])])
async def test_a_call_waits_for_others_where_it_comes_right_behind_an_answer(
    pause_s: float, together: list[list[str]]
) -> None:
    now_s, answered = 10.0, []
    gathering: Gathering[str] = Gathering(answered.append, 32, lambda: now_s)
    gathering.add("a")
    await turns(QUIET_TURNS)
    now_s += pause_s
    gathering.add("b")
    await turns(QUIET_TURNS - 2)
    now_s += pause_s
    gathering.add("c")
    await turns(2 * QUIET_TURNS)
    assert answered == together


async def test_no_more_calls_than_allowed_are_answered_together() -> None:
    answered: list[list[int]] = []
    gathering: Gathering[int] = Gathering(answered.append, 3, lambda: 0.0)
    for call in range(7):
        gathering.add(call)
    await turns(8 * QUIET_TURNS)
    assert answered == [[0, 1, 2], [3, 4, 5], [6]]


async def test_a_call_waits_for_one_that_is_announced_but_not_for_ever() -> None:
    answered: list[list[str]] = []
    gathering: Gathering[str] = Gathering(answered.append, 32, lambda: 0.0)
    gathering.announce()
    gathering.announce()
    gathering.add("a")
    await turns(QUIET_TURNS - 1)
    gathering.add("b")
    await turns(2 * QUIET_TURNS)
    gathering.announce()
    gathering.add("c")
    gathering.announce()  # its caller gives it up
    await turns(2 * QUIET_TURNS)
    assert answered == [["a", "b"], ["c"]]
