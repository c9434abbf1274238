"""The models that answer under one name: the champion, a canary for a share of the actors, and shadows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from serving.answering import ModelRounds
from serving.decision import Mode
from serving.loading import ServedModel
from serving.policy import Policy, is_canary


@dataclass(frozen=True, slots=True)
class Lineup:
    """`models`: alias or version → that model, for each that the policy names."""

    name: str
    policy: Policy
    models: Mapping[str, ModelRounds]

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

    def shadows(self) -> Iterable[ModelRounds]:
        """Whose scores are only logged."""
        return (self.models[name] for name in self.policy.shadows)


def lineup_of(
    name: str, policy: Policy, models: Mapping[str, ServedModel], rounds_of: Callable[[ServedModel], ModelRounds]
) -> Lineup:
    """The lineup of loaded models, alias or version → model."""
    return Lineup(name, policy, {called: rounds_of(model) for called, model in models.items()})
