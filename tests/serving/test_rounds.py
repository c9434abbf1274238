"""Requests that come while others are answered are answered together, each as if it were alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from materialize.online import OnlineStoreUnavailableError
from serving.decision import Decision
from serving.rounds import Rounds
from tests.serving.fakes import KEYS, SERVICE, World, click

DEADLINE_S = 10.0


class Gate:
    """Holds up whoever passes, until it is opened."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    async def passed(self) -> None:
        await self._open.wait()

    def open(self) -> None:
        self._open.set()


async def until(is_so: Callable[[], bool]) -> None:
    """Raises TimeoutError when it takes too long."""
    async with asyncio.timeout(DEADLINE_S):
        while not is_so():
            await asyncio.sleep(0)


async def doubled(asked: Sequence[int]) -> list[int]:
    return [2 * one for one in asked]


def held_up_by(gate: Gate, sizes: list[int]) -> Callable[[Sequence[int]], Awaitable[list[int]]]:
    """Answers as `doubled` does, once the gate is open; notes how many ask at once."""

    async def answer(asked: Sequence[int]) -> list[int]:
        sizes.append(len(asked))
        await gate.passed()
        return await doubled(asked)

    return answer


def test_who_comes_while_a_round_is_under_way_shares_the_next_one() -> None:
    sizes: list[int] = []

    async def run() -> list[int]:
        gate = Gate()
        rounds = Rounds(held_up_by(gate, sizes), size_max=4)
        answers = [rounds.ask(0)]
        await asyncio.sleep(0)
        answers += [rounds.ask(n) for n in range(1, 8)]
        gate.open()
        return await asyncio.gather(*answers)

    assert asyncio.run(run()) == [2 * n for n in range(8)]
    assert sizes == [1, 4, 3]


def test_patient_ones_let_all_others_go_first_and_who_has_left_is_left_out() -> None:
    order: list[list[str]] = []

    async def answer(asked: Sequence[str]) -> list[str]:
        order.append(list(asked))
        return list(asked)

    async def run() -> None:
        rounds = Rounds(answer, size_max=2)
        answers = [rounds.ask(name, patient=True) for name in ("p1", "p2")]
        answers += [rounds.ask(name) for name in ("u1", "gone", "u2", "u3")]
        answers[3].cancel()
        await asyncio.gather(*answers, return_exceptions=True)

    asyncio.run(run())
    assert order == [["u1", "u2"], ["u3", "p1"], ["p2"]]


def test_one_that_cannot_be_answered_costs_nobody_else_the_answer() -> None:
    async def answer(asked: Sequence[int]) -> list[int]:
        if 2 in asked:
            raise ZeroDivisionError
        return await doubled(asked)

    async def run() -> list[int | BaseException]:
        rounds = Rounds(answer, size_max=8)
        return await asyncio.gather(*(rounds.ask(n) for n in range(4)), return_exceptions=True)

    found = asyncio.run(run())
    assert isinstance(found[2], ZeroDivisionError)
    assert [found[n] for n in (0, 1, 3)] == [0, 2, 6]


def test_what_all_share_is_not_tried_again_for_each() -> None:
    calls: list[int] = []

    async def answer(asked: Sequence[int]) -> list[int]:
        calls.append(len(asked))
        raise TimeoutError

    async def run() -> None:
        rounds = Rounds(answer, size_max=8, shared=(TimeoutError,))
        await asyncio.gather(*(rounds.ask(n) for n in range(4)), return_exceptions=True)
        with pytest.raises(TimeoutError):
            await rounds.ask(1)

    asyncio.run(run())
    assert calls == [4, 1]


def test_who_asks_now_is_answered_at_once_and_who_comes_meanwhile_together_next() -> None:
    sizes: list[int] = []

    async def run() -> list[int]:
        gate = Gate()
        rounds = Rounds(held_up_by(gate, sizes), size_max=8)
        first = asyncio.create_task(rounds.ask_now(0))
        await until(lambda: sizes == [1])
        others = [asyncio.create_task(rounds.ask_now(n)) for n in (1, 2)]
        patient = rounds.ask(3, patient=True)
        await until(lambda: rounds.waiting == 2)
        gate.open()
        return await asyncio.gather(first, *others, patient)

    assert asyncio.run(run()) == [0, 2, 4, 6]
    assert sizes == [1, 3]


def test_those_who_ask_now_at_the_same_time_share_a_round_in_their_order() -> None:
    together: list[list[int]] = []

    async def answer(asked: Sequence[int]) -> list[int]:
        together.append(list(asked))
        return await doubled(asked)

    async def run() -> list[int]:
        rounds = Rounds(answer, size_max=8)
        return await asyncio.gather(*(rounds.ask_now(n) for n in range(4)))

    assert asyncio.run(run()) == [0, 2, 4, 6]
    assert together == [[0, 1, 2, 3]]


@pytest.mark.parametrize("ends", ["fails", "leaves"])
def test_who_waited_for_one_alone_is_answered_however_that_ends(ends: str) -> None:
    async def run() -> tuple[int, BaseException | None]:
        gate, begun = Gate(), asyncio.Event()

        async def answer(asked: Sequence[int]) -> list[int]:
            if 0 in asked:
                begun.set()
                await gate.passed()
                raise ZeroDivisionError
            return await doubled(asked)

        rounds = Rounds(answer, size_max=8)
        alone = asyncio.create_task(rounds.ask_now(0))
        await begun.wait()
        waiting = asyncio.create_task(rounds.ask_now(1))
        await until(lambda: rounds.waiting == 1)
        if ends == "fails":
            gate.open()
        else:
            alone.cancel()
        answered = await waiting
        (error,) = await asyncio.gather(alone, return_exceptions=True)
        assert await rounds.ask_now(2) == 4
        return answered, error if isinstance(error, BaseException) else None

    answered, error = asyncio.run(asyncio.wait_for(run(), DEADLINE_S))
    assert answered == 2
    assert isinstance(error, ZeroDivisionError if ends == "fails" else asyncio.CancelledError)


Bodies = Sequence[dict[str, object]]


def bodies(count: int) -> Bodies:
    """Requests of known and unknown actors, with and without events and explanations."""
    made: list[dict[str, object]] = []
    for n in range(count):
        entities = KEYS if n % 3 else {"ip": f"198.51.100.{n}", "device_id": f"dev-{n}"}
        body: dict[str, object] = {"model": SERVICE, "explain": ("top", "none", "full")[n % 3 - 1]}
        body |= {"entities": entities} if n % 2 else {"event": click(event_id=f"e{n}", **entities)}
        made.append(body)
    return made


def without_names(decision: Decision) -> dict[str, object]:
    """What two answers to one request have in common: all but ids and times."""
    kept = {name: getattr(decision, name) for name in decision.__struct_fields__}
    return {name: value for name, value in kept.items() if name not in ("decision_id", "trace_id", "latency_ms")}


def test_answers_given_together_are_those_given_alone(world: World) -> None:
    asked = bodies(40)
    alone = [asyncio.run(world.score(body)).decision() for body in asked]
    before, together = world.features.rounds, asyncio.run(at_once(world, asked))
    assert world.features.rounds - before < len(asked) / 4
    assert [without_names(one) for one in together] == [without_names(one) for one in alone]
    assert len({one.decision_id for one in together}) == len(asked)


async def at_once(world: World, asked: Bodies) -> list[Decision]:
    answers = await asyncio.gather(*(world.score(body) for body in asked))
    return [answer.decision() for answer in answers]


def test_a_wrong_request_among_others_is_told_alone(world: World) -> None:
    asked = [*bodies(5), {"model": SERVICE, "entities": {"ip": 7}}]

    async def run() -> list[int]:
        return [answer.status for answer in await asyncio.gather(*(world.score(body) for body in asked))]

    assert asyncio.run(run()) == [200] * 5 + [422]


def test_while_the_store_is_away_everyone_is_told_so_after_one_attempt(world: World) -> None:
    world.features.failure = OnlineStoreUnavailableError("away")

    async def run() -> list[int]:
        return [answer.status for answer in await asyncio.gather(*(world.score(body) for body in bodies(9)))]

    before = world.features.rounds
    assert asyncio.run(run()) == [503] * 9
    assert world.features.rounds - before == 1
