"""Explanations as bars in the terminal."""

from __future__ import annotations

import math

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from actor_risk.explaining import REST, Explained

_BAR_WIDTH = 24


def show_explained(console: Console, found: Explained, top: int) -> None:
    """One row: its shares, from base value to margin. Several: the mean size of each share."""
    console.print(Text(found.title, style="bold"), soft_wrap=True)
    console.print(_waterfall(found, top) if len(found.explanation.attributions) == 1 else _mean_sizes(found, top))


def _waterfall(found: Explained, top: int) -> Table:
    shares, space = found.explanation.attributions[0], found.explanation.output_space
    order = np.argsort(-np.abs(shares), kind="stable")
    drawn = [place for place in order[:top].tolist() if shares[place] != 0.0]
    widest = float(np.abs(shares[drawn]).max(initial=0.0)) or 1.0
    table = _table()
    table.add_row(f"{found.explanation.base_value:+.3f}", "", Text("base value", style="dim"), "")
    for place in drawn:
        table.add_row(
            f"{shares[place]:+.3f}",
            Text(_bar(abs(shares[place]), widest), style="red" if shares[place] > 0 else "green"),
            found.names[place],
            "" if found.data is None else _value(found.data[0, place]),
        )
    rest = float(np.delete(shares, drawn).sum())
    table.add_row(f"{rest:+.3f}", "", Text(REST, style="dim"), "")
    table.add_row(f"{found.margins()[0]:+.3f}", "", Text(f"= margin ({space})", style="dim"), "")
    return table


def _mean_sizes(found: Explained, top: int) -> Table:
    sizes = np.abs(found.explanation.attributions).mean(axis=0)
    order = np.argsort(-sizes, kind="stable")[:top].tolist()
    widest = float(sizes.max(initial=0.0)) or 1.0
    table = _table()
    told = f"mean size of the share in {len(found.explanation.attributions)} rows ({found.explanation.output_space})"
    table.add_row("", "", Text(told, style="dim"), "")
    for place in order:
        table.add_row(f"{sizes[place]:.3f}", Text(_bar(sizes[place], widest), style="cyan"), found.names[place], "")
    return table


def _table() -> Table:
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(justify="right", width=8)
    table.add_column(width=_BAR_WIDTH)
    table.add_column()
    table.add_column(justify="right")
    return table


def _bar(size: float, widest: float) -> str:
    return "█" * max(1, round(_BAR_WIDTH * size / widest))


def _value(value: float) -> str:
    return "—" if math.isnan(value) else f"{value:,.4g}"
