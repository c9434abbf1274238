"""The `actor-risk` command: one group, each command a few lines over a function that does the work."""

from actor_risk.cli._main import main

__all__ = ["main"]
