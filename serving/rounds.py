"""Requests that arrive while others are being answered are answered together, in the next round.

    ask ──► waiting ──► a round: up to `size_max` of them ──► their answers
                ▲                                      │
                └── who comes meanwhile waits here ◄───┘ the next round begins at once

Nobody waits for company: a round begins when there is one to answer and none is under way, and after a round those are
heard who have arrived by then. A round costs little more than a single answer, so the more requests come, the less each
costs. Who asks alone is spared what a round of several needs: a task, and an answer that waits to be fetched.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

TURNS_HEARD = 3
"""Turns of the event loop between two rounds. Who came during a round is read from its socket in the first, and asks in
the second: the next round is for all of them. Nobody waits meanwhile: answers leave."""

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Rounds(Generic[Asked, Answer]):
    """Answers what is asked in rounds. For one event loop."""

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]],
        *,
        size_max: int,
        under_way_max: int = 1,
        shared: tuple[type[Exception], ...] = (),
    ) -> None:
        """`answer` gives one answer for each of at most `size_max`; at most `under_way_max` rounds are under way. Its
        errors of the kinds `shared` concern the whole round; after any other each member is tried alone."""
        self._answer = answer
        self._size_max = size_max
        self._under_way_max = under_way_max
        self._under_way = 0
        self._shared = shared
        self._urgent: deque[tuple[Asked, asyncio.Future[Answer]]] = deque()
        self._patient: deque[tuple[Asked, asyncio.Future[Answer]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many wait for a round, patient ones not counted."""
        return len(self._urgent)

    @property
    def patient(self) -> int:
        """How many patient ones wait."""
        return len(self._patient)

    def ask(self, asked: Asked, *, patient: bool = False) -> asyncio.Future[Answer]:
        """The answer to come. Patient ones let all others go first. Who cancels theirs is left out, if it is not late.

        The future raises what `answer` raised.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        (self._patient if patient else self._urgent).append((asked, answer))
        if self._under_way < self._under_way_max:
            self._begin()
        return answer

    async def ask_now(self, asked: Asked) -> Answer:
        """The same for who waits for the answer however long it takes, and need not leave: alone if nobody else asks.

        Raises what `answer` raised.
        """
        if self._under_way >= self._under_way_max:
            return await self.ask(asked)
        self._under_way += 1
        try:
            await asyncio.sleep(0)  # who came at the same time asks in this turn
            if not (self._urgent or self._patient):
                return (await self._answer([asked]))[0]
            answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            self._urgent.appendleft((asked, answer))
        finally:
            self._under_way -= 1
            if self._urgent or self._patient:
                self._begin(TURNS_HEARD)
        return await answer

    def _begin(self, turns: int = 0) -> None:
        """Begin rounds, after so many turns of the event loop."""
        self._under_way += 1
        task = asyncio.create_task(self._run(turns), context=Context())  # a round is nobody's: it has no trace
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, turns: int) -> None:
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
            while members := self._next():
                await self._round(members)
                for _ in range(TURNS_HEARD):
                    await asyncio.sleep(0)
        finally:
            self._under_way -= 1

    def _next(self) -> list[tuple[Asked, asyncio.Future[Answer]]]:
        members: list[tuple[Asked, asyncio.Future[Answer]]] = []
        for queue in (self._urgent, self._patient):
            while queue and len(members) < self._size_max:
                member = queue.popleft()
                if not member[1].done():
                    members.append(member)
        return members

    async def _round(self, members: Sequence[tuple[Asked, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._answer([asked for asked, _ in members])
        except Exception as error:  # whatever it is, it is the answer of who asked
            if len(members) > 1 and not isinstance(error, self._shared):
                for member in members:
                    await self._round([member])
                return
            for _, waiting in members:
                if not waiting.done():
                    waiting.set_exception(error)
            return
        for (_, waiting), answer in zip(members, answers, strict=True):
            if not waiting.done():
                waiting.set_result(answer)
