"""From what replicas have counted so far to what they did lately.

Behind one address each reading is of some replica: changes are those between two pages of the same one, added up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

from actor_risk.watching.pages import Page

RECENT_S = 10.0
GONE_S = 30.0
"""A replica that was not reached for so long is not shown any more."""
HISTORY = 60

Key = tuple[str, ...]
Where = Callable[[Mapping[str, str]], bool]


def always(labels: Mapping[str, str]) -> bool:  # noqa: ARG001
    """Every series."""
    return True


class Recent:
    """The pages of the last seconds, by replica."""

    def __init__(self) -> None:
        self._pages: dict[str, deque[Page]] = {}
        self._history: deque[float] = deque(maxlen=HISTORY)

    def note(self, page: Page) -> None:
        """A page, newer than those before."""
        pages = self._pages.setdefault(page.replica, deque())
        pages.append(page)
        while len(pages) > 2 and pages[1].at_s < page.at_s - RECENT_S:
            pages.popleft()
        for name in [name for name, seen in self._pages.items() if seen[-1].at_s < page.at_s - GONE_S]:
            del self._pages[name]
        self._history.append(sum(self.per_s("actor_risk_requests_total").values()))

    @property
    def replicas(self) -> dict[str, Page]:
        """Replica → its newest page."""
        return {name: pages[-1] for name, pages in sorted(self._pages.items())}

    @property
    def history(self) -> list[float]:
        """Requests a second at each page, the oldest first."""
        return list(self._history)

    @property
    def is_idle(self) -> bool:
        """Whether nothing was answered lately; then changes are those since the start."""
        return not sum(self._added("actor_risk_verdicts_total", (), always).values())

    def per_s(self, name: str, by: Iterable[str] = (), where: Where = always) -> dict[Key, float]:
        """How fast counters grow, by the values of these labels; empty while nothing can be said."""
        return self._added(name, by, where, per_s=True)

    def changes(self, name: str, by: Iterable[str], where: Where = always) -> dict[Key, float]:
        """What was added to counters lately, or since the start, by the values of these labels."""
        return self._added(name, by, where, since_start=self.is_idle)

    def _added(
        self, name: str, by: Iterable[str], where: Where, *, per_s: bool = False, since_start: bool = False
    ) -> dict[Key, float]:
        names = tuple(by)
        found: dict[Key, float] = {}
        for pages in self._pages.values():
            if len(pages) < 2 and not since_start:
                continue
            before = {} if since_start else pages[0].of(name)
            seconds = pages[-1].at_s - pages[0].at_s if per_s else 1.0
            for labels, value in pages[-1].of(name).items():
                told = dict(labels)
                if where(told):
                    key = tuple(told.get(label, "") for label in names)
                    found[key] = found.get(key, 0.0) + max(value - before.get(labels, 0.0), 0.0) / seconds
        return found

    def now(self, name: str, by: Iterable[str], join: Callable[[float, float], float]) -> dict[Key, float]:
        """The newest values of gauges, by the values of these labels; those of several replicas are joined."""
        names = tuple(by)
        found: dict[Key, float] = {}
        for page in self.replicas.values():
            for labels, value in page.of(name).items():
                told = dict(labels)
                key = tuple(told.get(label, "") for label in names)
                found[key] = join(found[key], value) if key in found else value
        return found


def quantile(buckets: Mapping[str, float], q: float) -> float | None:
    """About the value below which a share `q` lies, straight within a bucket; None without values.

    `buckets`: upper bound, as Prometheus writes it → how many are not above it. Beyond the last bound, that bound.
    """
    ends = sorted((float(end), count) for end, count in buckets.items())
    if not ends or not ends[-1][1]:
        return None
    wanted = q * ends[-1][1]
    for (low, below), (high, count) in pairwise([(0.0, 0.0), *ends]):
        if count >= wanted and count > below:
            return low if high == float("inf") else low + (high - low) * (wanted - below) / (count - below)
    return ends[-1][0]
