"""One reading of `/metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

from actor_risk.errors import ActorRiskError

Labels = frozenset[tuple[str, str]]
TIMEOUT_S = 5.0
_REFUSED = (401, 403)


@dataclass(frozen=True, slots=True)
class Page:
    """What one replica has counted. `at_s`: when it was read, on any clock that only goes forward.

    `samples`: name → labels, without that of the replica → value.
    """

    at_s: float
    replica: str
    samples: Mapping[str, Mapping[Labels, float]]

    def of(self, name: str) -> Mapping[Labels, float]:
        """The series of a name."""
        return self.samples.get(name, {})


def parse(text: str, at_s: float) -> Page:
    """The page that a replica has written. Raises ActorRiskError for what is no page of metrics."""
    samples: dict[str, dict[Labels, float]] = {}
    replica = ""
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                replica = sample.labels.pop("replica", replica)
                samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    except ValueError as error:
        raise ActorRiskError(f"that is no page of metrics: {error}") from error
    return Page(at_s, replica, samples)


def fetch(url: str, key: str | None) -> str:
    """The text of `/metrics`; `key` is an API key or token. Raises ActorRiskError, saying what to do."""
    request = Request(f"{url}/metrics", headers={"authorization": f"Bearer {key}"} if key else {})
    try:
        with urlopen(request, timeout=TIMEOUT_S) as answer:
            return str(answer.read(), "utf-8", "replace")
    except HTTPError as error:
        told = ": set ACTOR_RISK_API_KEY to a key with the scope admin" if error.code in _REFUSED else ""
        raise ActorRiskError(f"{error.code} from {url}/metrics{told}") from error
    except (URLError, OSError, ValueError) as error:
        raise ActorRiskError(f"nobody answers at {url} ({error}): start it with `actor-risk serve`") from error
