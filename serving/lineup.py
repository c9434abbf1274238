"""The models that answer under one name: the champion, a canary for a share of the actors, shadows, a fallback."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from serving.answering import ModelRounds
from serving.decision import Mode, ModelCard, Role
from serving.loading import ServedModel
from serving.policy import Choice, Policy, is_canary


@dataclass(frozen=True, slots=True)
class Lineup:
    """`models`: alias or version → that model, for each that the policy names. `rollout`: the number of the rollout
    whose policy it is, 0 for that of the configuration."""

    name: str
    policy: Policy
    models: Mapping[str, ModelRounds]
    rollout: int

    @property
    def champion(self) -> ModelRounds:
        """Who answers unless another is chosen."""
        return self.models[self.policy.champion]

    def chosen(self, actor: Mapping[str, str | int]) -> tuple[ModelRounds, Mode]:
        """Who answers about an actor, and as what."""
        canary = self.policy.canary
        if canary is not None and is_canary(canary.share, self.name, actor):
            return self.models[canary.model], "canary"
        return self.champion, "live"

    def cards(self) -> list[ModelCard]:
        """Each model, the champion first, and what it does here."""
        return [
            replace(model.served.card, mode=self._mode(called), share=self._share(called), rollout=self.rollout)
            for called, model in self.models.items()
        ]

    def _mode(self, called: str) -> Role:
        if called == self.policy.champion:
            return "live"
        if self.policy.canary is not None and called == self.policy.canary.model:
            return "canary"
        return "fallback" if called == self.policy.fallback_model else "shadow"

    def _share(self, called: str) -> float:
        """Of the actors whom it answers about."""
        policy, mode = self.policy, self._mode(called)
        canary = 0.0 if policy.canary is None else policy.canary.share
        shares: dict[Role, float] = {"live": 1 - canary, "canary": canary}
        return shares.get(mode, 0.0) if policy.is_on else 0.0

    @property
    def fallback(self) -> ModelRounds | None:
        """Who answers where the policy falls back, if it names a model for that."""
        called = self.policy.fallback_model
        return None if called is None else self.models[called]

    def shadows(self) -> Iterable[ModelRounds]:
        """Whose scores are only logged."""
        return (self.models[name] for name in self.policy.shadows)


def lineup_of(
    name: str, choice: Choice, models: Mapping[str, ServedModel], rounds_of: Callable[[ServedModel], ModelRounds]
) -> Lineup:
    """The lineup of loaded models, alias or version → model."""
    rounds = {called: rounds_of(model) for called, model in models.items()}
    return Lineup(name, choice.policy, rounds, choice.rollout)
