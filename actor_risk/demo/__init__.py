"""The whole job on one machine, for a person to watch: from simulated or real events to an explained score."""

from actor_risk.demo._run import run_demo

__all__ = ["run_demo"]
