from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aigate.worker.turn import ALONE, AT_ONCE, MANY, Turn


class Socket:
    """Writes its name to `log` when it is asked for what it holds."""

    def __init__(self, log: list[str], name: str):
        self.log = log
        self.name = name

    def send_held(self) -> None:
        if self.name == "broken":
            raise RuntimeError("broken")
        self.log.append(self.name)


def run(scenario: Callable[[Turn, list[str]], Awaitable[Any]]) -> list[str]:
    log: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: log.append(f"told: {context['exception']}"))
        await scenario(Turn(loop, lambda: log.append("journal")), log)

    asyncio.run(main())
    return log


def test_the_journal_is_written_before_anything_held_is_sent() -> None:
    async def scenario(turn: Turn, log: list[str]) -> None:
        assert turn.takes(Socket(log, "a"))
        assert turn.holds()
        assert turn.takes(Socket(log, "b"))
        assert log == []
        await asyncio.sleep(0)

    assert run(scenario) == ["journal", "a", "b"]


async def spend_turns(turn: Turn, log: list[str], *sends: int) -> None:
    for count in sends:
        for _ in range(count):
            assert turn.takes(Socket(log, "x"))
        await asyncio.sleep(0)


def test_where_turns_have_one_send_each_the_next_do_not_wait() -> None:
    async def scenario(turn: Turn, log: list[str]) -> None:
        await spend_turns(turn, log, *[1] * (ALONE + 1))
        for _ in range(3):  # and now and then one waits, to see whether that still holds
            assert [turn.holds() for _ in range(AT_ONCE + 1)] == [False] * AT_ONCE + [True]
            await asyncio.sleep(0)

    run(scenario)


@pytest.mark.parametrize("place", range(ALONE + 1))
def test_a_turn_with_several_sends_among_them_keeps_all_waiting(place: int) -> None:
    async def scenario(turn: Turn, log: list[str]) -> None:
        sends = [1] * (ALONE + 1)
        sends[place] = 2
        await spend_turns(turn, log, *sends)
        assert turn.holds()

    run(scenario)


def test_while_something_is_held_nothing_goes_past_it() -> None:
    async def scenario(turn: Turn, log: list[str]) -> None:
        await spend_turns(turn, log, *[1] * (ALONE + 1))
        while not turn.holds():
            pass
        assert all(turn.holds() for _ in range(2 * AT_ONCE))

    run(scenario)


def test_a_flush_sends_what_is_held_now_and_only_once() -> None:
    async def scenario(turn: Turn, log: list[str]) -> None:
        turn.takes(Socket(log, "a"))
        turn.flush()
        assert log == ["journal", "a"]
        await asyncio.sleep(0)

    assert run(scenario).count("a") == 1


def test_the_first_of_many_does_not_wait_for_the_last() -> None:
    async def scenario(turn: Turn, log: list[str]) -> None:
        for number in range(MANY + 1):
            turn.takes(Socket(log, str(number)))
        assert log == ["journal", *map(str, range(MANY))]
        await asyncio.sleep(0)
        assert log[-1] == str(MANY)

    run(scenario)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_send_that_fails_does_not_keep_the_others(place: int) -> None:
    async def scenario(turn: Turn, log: list[str]) -> None:
        names = ["a", "b"]
        names.insert(place, "broken")
        for name in names:
            turn.takes(Socket(log, name))
        await asyncio.sleep(0)

    log = run(scenario)
    assert sorted(log) == ["a", "b", "journal", "told: broken"]
