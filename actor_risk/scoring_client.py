"""Asking a scoring application from the command line, and showing its answer to a person."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.table import Table
from rich.text import Text

from actor_risk.errors import ActorRiskError

Answer = dict[str, Any]
_COLOURS = {"allow": "green", "review": "yellow", "block": "red"}
_BAR_WIDTH = 16


def ask(url: str, body: Answer, timeout_s: float = 10.0, key: str | None = None) -> Answer:
    """The decision record for a request body; `key` is an API key or token. Raises ActorRiskError with the problem that
    the server names."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    request = Request(f"{url}/v1/score", json.dumps(body).encode(), headers)
    try:
        with urlopen(request, timeout=timeout_s) as answer:
            record: Answer = json.load(answer)
            return record
    except HTTPError as error:
        raise ActorRiskError(f"{error.code} from {url}: {error.read().decode(errors='replace')}") from error
    except (URLError, OSError) as error:
        raise ActorRiskError(f"nobody answers at {url} ({error}): start it with `actor-risk serve`") from error


def show(console: Console, title: str, answer: Answer) -> None:
    """The answer as a person wants to read it: score, verdict, and why."""
    colour = _COLOURS.get(answer["verdict"], "white")
    actor = ", ".join(f"{key} {value}" for key, value in answer["actor"].items())
    head = Text.assemble(
        (f"{title}  ", "bold"),
        ("score ", ""),
        (f"{answer['score']:.3f}  ", f"bold {colour}"),
        (answer["verdict"].upper(), f"bold {colour}"),
    )
    console.print(head)
    console.print(Text(f"  {actor}", style="dim"), soft_wrap=True)
    console.print(_reasons(answer))
    total = answer["latency_ms"]["total"]
    model = answer["model"]
    console.print(
        Text(f"  model {model['name']} {model['version']}, as of {answer['as_of']}, {total:.1f} ms", style="dim"),
        soft_wrap=True,
    )


def _reasons(answer: Answer) -> Table:
    """A bar for each reason, and below it the strongest feature behind it."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(justify="right", width=8)
    table.add_column(width=_BAR_WIDTH)
    table.add_column()
    table.add_column(justify="right")
    table.add_row(f"{answer['base_value']:+.3f}", "", Text("base value: log-odds of a typical actor", style="dim"), "")
    widest = max((abs(reason["attribution"]) for reason in answer["reasons"]), default=1.0) or 1.0
    for reason in answer["reasons"]:
        up = reason["attribution"] > 0
        bar = "█" * max(1, round(_BAR_WIDTH * abs(reason["attribution"]) / widest))
        first = reason["features"][0]
        alone = first["feature"] == reason["family"]
        table.add_row(
            f"{reason['attribution']:+.3f}",
            Text(bar, style="red" if up else "green"),
            reason["description"],
            _value(first) if alone else "",
        )
        if not alone:
            table.add_row("", "", Text(f"  {first['description']}", style="dim"), Text(_value(first), style="dim"))
    table.add_row(f"{answer['attributions_rest']:+.3f}", "", Text("everything else", style="dim"), "")
    table.add_row(f"{answer['margin']:+.3f}", "", Text("= margin (log-odds)", style="dim"), "")
    return table


def _value(feature: Answer) -> str:
    return "—" if feature["value"] is None else f"{feature['value']:,.4g}"
