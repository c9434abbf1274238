"""How large, how long and how abusive a simulated world is."""

from __future__ import annotations

from dataclasses import dataclass

from actor_risk.simulate._arrays import DAY_MS, HOUR_MS
from actor_risk.simulate._errors import InvalidSettingsError

_LEAST = {
    "advertisers": 40,
    "creators": 40,
    "ips": 400,
    "devices": 400,
    "ad_events_per_day": 100,
    "account_events_per_day": 100,
}
_SHARES = {"invalid_click_share": 0.5, "abusive_advertiser_share": 0.5, "label_noise": 0.25}


@dataclass(frozen=True)
class SimulationSettings:
    """The whole input of a simulation: equal settings give equal bytes, whenever and wherever they run.

    Times are integer milliseconds UTC; events lie in `[start_ms, end_ms)`. Sizes of the streams are met within a
    few percent. `invalid_click_share` is the share of clicks that abuse makes, `abusive_advertiser_share` the share
    of advertisers that turn abusive within the span, `label_noise` the share of labels that is flipped.

    Raises InvalidSettingsError, naming the setting and its bounds.
    """

    seed: int
    start_ms: int
    end_ms: int
    advertisers: int = 800
    creators: int = 1_500
    ips: int = 15_000
    devices: int = 20_000
    ad_events_per_day: int = 25_000
    account_events_per_day: int = 6_000
    invalid_click_share: float = 0.12
    abusive_advertiser_share: float = 0.12
    label_noise: float = 0.01

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InvalidSettingsError(f"seed is {self.seed}: give an integer of 0 or more")
        if self.start_ms < 0 or self.end_ms - self.start_ms < HOUR_MS:
            raise InvalidSettingsError(
                f"start_ms {self.start_ms} to end_ms {self.end_ms}: give milliseconds UTC at least one hour apart"
            )
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise InvalidSettingsError(f"{name} is {getattr(self, name)}: give {least} or more")
        for name, most in _SHARES.items():
            if not 0 <= getattr(self, name) <= most:
                raise InvalidSettingsError(f"{name} is {getattr(self, name)}: give a share from 0 to {most}")

    @property
    def days(self) -> float:
        """Length of the span in days."""
        return (self.end_ms - self.start_ms) / DAY_MS
