"""What a benchmark finds, and the bars that its figures are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Bar:
    """`figure` is to be at least or at most `limit`; `key` names it in the report."""

    key: str
    figure: float
    limit: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure reaches the bar."""
        return self.figure <= self.limit if self.at_most else self.figure >= self.limit


def against_bars(bars: Sequence[Bar]) -> Mapping[str, Mapping[str, object]]:
    """The bars with their figures and verdicts, as the report has them."""
    return {
        bar.key: {
            "figure": bar.figure,
            "bar": f"{'≤' if bar.at_most else '≥'} {bar.limit:,g}",
            "verdict": "pass" if bar.met else "fail",
        }
        for bar in bars
    }


@dataclass(frozen=True)
class Findings:
    """`figures` by the key of the report; for some of them their `spread`; and what else a reader should know."""

    figures: dict[str, float]
    spread: dict[str, object] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)

    def __or__(self, other: Findings) -> Findings:
        return Findings(self.figures | other.figures, self.spread | other.spread, self.notes | other.notes)

    def as_report(self, bars: Sequence[Bar]) -> dict[str, object]:
        """The figures, then spread, notes and bars."""
        return {**self.figures, "spread": self.spread, "notes": self.notes, "bars": against_bars(bars)}
