"""What can wait does so: a call never waits for all heartbeats that have come."""

from __future__ import annotations

import asyncio

from xpool_protocol.control.turns import Turns


def test_one_turn_in_each_round_and_all_else_in_between() -> None:
    said: list[str] = []

    async def heartbeat(turns: Turns, number: int) -> None:
        await turns.take()
        said.append(f"heartbeat {number}")

    async def call(number: int) -> None:
        for part in "abcd":  # as many rounds as a call of gRPC's takes
            said.append(f"call {number}{part}")
            await asyncio.sleep(0)

    async def play() -> None:
        turns = Turns()
        beats = [asyncio.ensure_future(heartbeat(turns, n)) for n in range(50)]
        await asyncio.sleep(0)
        calls = [asyncio.ensure_future(call(n)) for n in range(3)]
        await asyncio.gather(*calls)
        assert len(turns) > 40
        await asyncio.gather(*beats)
        assert not len(turns)

    asyncio.run(play())
    beats = [one for one in said if one.startswith("heartbeat")]
    assert beats == [f"heartbeat {n}" for n in range(50)]
    last_call = said.index("call 2d")
    assert sum(one.startswith("heartbeat") for one in said[:last_call]) <= 5


def test_who_gives_up_costs_the_others_nothing() -> None:
    async def play() -> list[int]:
        turns, done = Turns(), []

        async def one(number: int) -> None:
            await turns.take()
            done.append(number)

        tasks = [asyncio.ensure_future(one(n)) for n in range(4)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await one(4)  # and it goes on
        return done

    assert asyncio.run(play()) == [1, 3, 4]
