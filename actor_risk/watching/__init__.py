"""`actor-risk top`: what a running scoring application does, from its metrics, on one screen."""

from actor_risk.watching.pages import Page, fetch, parse
from actor_risk.watching.recent import Recent
from actor_risk.watching.screen import screen

__all__ = ["Page", "Recent", "fetch", "parse", "screen"]
