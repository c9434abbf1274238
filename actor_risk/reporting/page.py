"""A report as one HTML file: no script, nothing fetched, light and dark, fit to print."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Literal

Kind = Literal["good", "bad", "none"]


@dataclass(frozen=True)
class Tile:
    """A number of the first screen: its name, itself, and a word beside it. All three are HTML."""

    name: str
    value: str
    told: str


def page(*, what: str, headline: str, kind: Kind, about: str, body: str, style: str) -> str:
    """The whole file. body: HTML; style: CSS beside what all pages share; the rest is text."""
    shared = resources.files("actor_risk.reporting").joinpath("page.css").read_text()
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(what)}: {escape(headline)}</title><style>{shared}{style}</style></head><body><main>"
        f'<header class="{kind}"><p class="what">{escape(what)}</p><h1>{escape(headline)}</h1>'
        f"<p>{escape(about)}</p></header>{body}</main></body></html>\n"
    )


def tiles(*shown: Tile) -> str:
    """The first screen's numbers."""
    cells = "".join(f"<div><dt>{tile.name}</dt><dd>{tile.value}</dd><dd>{tile.told}</dd></div>" for tile in shown)
    return f'<dl class="tiles">{cells}</dl>'
