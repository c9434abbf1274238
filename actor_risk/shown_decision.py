"""Showing a decision to a person."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from actor_risk.client import Decision, ReasonFeature

_COLOURS = {"allow": "green", "review": "yellow", "block": "red"}
_BAR_WIDTH = 16


def show(console: Console, title: str, decision: Decision) -> None:
    """The decision as a person wants to read it: score, verdict, and why."""
    colour = _COLOURS[decision.verdict]
    actor = ", ".join(f"{key} {value}" for key, value in decision.actor.items())
    head = Text.assemble(
        (f"{title}  ", "bold"),
        ("score ", ""),
        (f"{decision.score:.3f}  ", f"bold {colour}"),
        (decision.verdict.upper(), f"bold {colour}"),
    )
    console.print(head)
    console.print(Text(f"  {actor}", style="dim"), soft_wrap=True)
    console.print(_reasons(decision))
    model, total_ms = decision.model, decision.latency_ms.total
    console.print(
        Text(f"  model {model.name} {model.version}, as of {decision.as_of}, {total_ms:.1f} ms", style="dim"),
        soft_wrap=True,
    )


def _reasons(decision: Decision) -> Table:
    """A bar for each reason, and below it the strongest feature behind it."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(justify="right", width=8)
    table.add_column(width=_BAR_WIDTH)
    table.add_column()
    table.add_column(justify="right")
    table.add_row(f"{decision.base_value:+.3f}", "", Text("base value: log-odds of a typical actor", style="dim"), "")
    widest = max((abs(reason.attribution) for reason in decision.reasons), default=1.0) or 1.0
    for reason in decision.reasons:
        up = reason.attribution > 0
        bar = "█" * max(1, round(_BAR_WIDTH * abs(reason.attribution) / widest))
        first = reason.features[0]
        alone = first.feature == reason.family
        table.add_row(
            f"{reason.attribution:+.3f}",
            Text(bar, style="red" if up else "green"),
            reason.description,
            _value(first) if alone else "",
        )
        if not alone:
            table.add_row("", "", Text(f"  {first.description}", style="dim"), Text(_value(first), style="dim"))
    table.add_row(f"{decision.attributions_rest:+.3f}", "", Text("everything else", style="dim"), "")
    table.add_row(f"{decision.margin:+.3f}", "", Text("= margin (log-odds)", style="dim"), "")
    return table


def _value(feature: ReasonFeature) -> str:
    return "—" if feature.value is None else f"{feature.value:,.4g}"
