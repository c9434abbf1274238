"""How often a worker that dies is started again, and how soon."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RestartPolicy:
    """Wait `first_s` after a death, twice as long after each further one, `longest_s` at most. More than `deaths_max`
    deaths within `window_s` are too many."""

    first_s: float = 0.5
    longest_s: float = 15.0
    deaths_max: int = 5
    window_s: float = 120.0


@dataclass
class Deaths:
    """Those of one worker, by the seconds of some clock."""

    policy: RestartPolicy
    _times_s: list[float] = field(default_factory=list)

    def note(self, now_s: float) -> float | None:
        """The worker died now. Returns the seconds to wait before it is started again, None if it died too often."""
        policy = self.policy
        self._times_s = [*(time_s for time_s in self._times_s if now_s - time_s < policy.window_s), now_s]
        if len(self._times_s) > policy.deaths_max:
            return None
        return min(policy.first_s * 2.0 ** (len(self._times_s) - 1), policy.longest_s)
