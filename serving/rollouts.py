"""Serves what the model store's rollouts say, within a second or so of their being set, and after every restart.

    user_config names the models ──► the newest rollout of each, if there is one, says by which policy it answers
                                        │ cannot be served: the one before it stays, or is taken by a new replica
    every second or so ─────────────► a newer one? ──► loaded beside what is served, then swapped in

Each model follows its own rollouts: a broken one of another does not stand in the way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from models.errors import ModelError
from models.rollouts import Rollout
from serving.clock import NS_PER_MS, Clock
from serving.errors import ModelLoadError
from serving.policy import Choice, Policy, policy_of
from serving.ports import RolloutSource
from serving.scoring import ScoringService

BACK_MAX = 8
"""So many entries a new replica goes back to find one that can be served."""
RETRY_MS = 10_000.0
"""What could not be served is tried again after so long: its model may only have been out of reach."""

_LOG = logging.getLogger(__name__)


class _Refused(NamedTuple):
    number: int
    again_ns: float


class RolloutFollower:
    """Keeps a service at the rollouts of its models."""

    def __init__(self, service: ScoringService, source: RolloutSource, clock: Clock) -> None:
        self._service = service
        self._source = source
        self._clock = clock
        self._configured: Mapping[str, Policy] = {}
        self._refused: dict[str, _Refused] = {}

    @property
    def has_models(self) -> bool:
        """Whether any model is served."""
        return bool(self._service.cards())

    async def load(self, models: Mapping[str, str | Policy], *, by_rollouts: bool = True) -> None:
        """Serve these models and no others, by their rollouts, where there are some, else by what is said here.

        Raises ModelLoadError, and then what was served before stays.
        """
        configured = {name: policy_of(said) for name, said in models.items()}
        try:
            found = await asyncio.to_thread(self._histories, configured) if by_rollouts else {}
        except ModelError as error:
            raise ModelLoadError(f"the rollouts cannot be read: {error}") from error
        choices = {name: _choices(policy, found.get(name, [])) for name, policy in configured.items()}
        await self._service.load_first(choices)
        self._configured = configured if by_rollouts else {}
        self._refused = {}
        for name, history in found.items():
            if history and self._service.rollout(name) != history[-1].number:
                self._note_refusal(name, history[-1].number)

    async def warm_up(self) -> None:
        """As `ScoringService.warm_up`."""
        await self._service.warm_up()

    def _histories(self, names: Mapping[str, Policy]) -> dict[str, list[Rollout]]:
        return {name: self._source.history(name, BACK_MAX) for name in names}

    async def follow(self) -> list[str]:
        """Take over newer rollouts. Returns the names of those models that have changed."""
        try:
            found = await asyncio.to_thread(self._newer)
        except ModelError as error:
            self._service.tell("rollouts", f"the rollouts cannot be read, the last ones stay: {error}")
            return []
        self._service.tell("rollouts", None)
        return [name for name, entry in found.items() if await self._take(name, entry)]

    def _newer(self) -> dict[str, Rollout]:
        newest = {name: self._source.newest(name, self._service.rollout(name)) for name in self._configured}
        return {name: entry for name, entry in newest.items() if entry is not None and self._is_due(name, entry)}

    def _is_due(self, name: str, entry: Rollout) -> bool:
        refused = self._refused.get(name)
        return refused is None or refused.number != entry.number or self._clock.monotonic_ns() >= refused.again_ns

    async def _take(self, name: str, entry: Rollout) -> bool:
        try:
            await self._service.change(name, _choice(entry, self._configured[name]))
        except ModelLoadError as error:
            self._note_refusal(name, entry.number)
            _LOG.error("rollout %d of %s is refused, what was served stays: %s", entry.number, name, error)
            return False
        self._refused.pop(name, None)
        _LOG.info("%s answers by rollout %d, which %s set", name, entry.number, entry.by)
        return True

    def _note_refusal(self, name: str, number: int) -> None:
        self._refused[name] = _Refused(number, self._clock.monotonic_ns() + RETRY_MS * NS_PER_MS)


def _choices(configured: Policy, history: list[Rollout]) -> list[Choice]:
    """What may be served under a name, the first that can be is: the newest entry, those before it, the configured."""
    return [*(_choice(entry, configured) for entry in reversed(history)), Choice(configured)]


def _choice(entry: Rollout, configured: Policy) -> Choice:
    if entry.policy is None:
        return Choice(configured, entry.number)
    try:
        return Choice(msgspec.convert(entry.policy, Policy), entry.number)
    except msgspec.ValidationError as error:
        return Choice(configured, entry.number, f"its policy cannot be read: {error}")
