"""The group, and how errors reach a person: one line that says what to do, and exit code 1."""

from __future__ import annotations

import importlib
from typing import Any

import click

from actor_risk.errors import ActorRiskError
from actor_risk.local import LocalRuntimeError

COMMANDS = {
    "demo": ("_demo", "Run the whole job on this machine: simulate, backfill, train, serve, score."),
    "up": ("_environment", "Start the embedded Valkey server."),
    "down": ("_environment", "Stop the embedded Valkey server."),
    "simulate": ("_events", "Make labelled history, and optionally live events."),
    "plan": ("_plan", "Say what a change to feature_repo/ does, before it is merged."),
    "test": ("_test", "Test features: events in, expected values out, as in training and as in serving."),
    "apply": ("_features", "Put the feature repository into the registry, planned first; and undo it."),
    "lineage": ("_lineage", "Follow a value from the column of a source to the decision, and back."),
    "backfill": ("_backfill", "Write online rows from history; can be stopped and resumed."),
    "stream": ("_stream", "Fold the event log into online rows."),
    "dead-letters": ("_dead_letters", "Look at events that could not be used, and send them again."),
    "train": ("_models", "Build a training set, train, publish, make it champion."),
    "models": ("_bundles", "Import a model, look at models and versions, set aliases."),
    "rollout": ("_rollout", "Say what answers: champion, canary, shadows, thresholds, on or off; and go back."),
    "serve": ("_serving", "Run the scoring application."),
    "keys": ("_keys", "API keys of those who may ask: make, list, revoke."),
    "score": ("_serving", "Ask a running scoring application."),
    "top": ("_top", "Watch a running scoring application on one screen."),
    "decisions": ("_decisions", "Write decisions from the event log to Parquet."),
    "explain": ("_explain", "Show why: bars here, or shap's waterfall and beeswarm as a picture."),
    "audit": ("_audit", "Compute served features again from history, and compare."),
}


class _Lazy(click.Group):
    """Imports a command's module when the command is called, so that `--help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"actor_risk.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise  # click's own: what follows would import everything to find out
        except Exception as error:
            if isinstance(error, (ActorRiskError, LocalRuntimeError, *_own_errors())):
                raise click.ClickException(str(error)) from error
            raise


def _own_errors() -> tuple[type[Exception], ...]:
    """The roots of the packages' exceptions, whose messages are written for people."""
    from actor_risk.client import ClientError
    from actor_risk.simulate import SimulationError
    from materialize.backfill import BackfillError, StagingError
    from materialize.definitions import DefinitionError
    from materialize.kernel import KernelError
    from materialize.offline import HistoryError
    from materialize.online import OnlineStoreError
    from materialize.stream import StreamError
    from models import ModelError

    return (
        ClientError,
        SimulationError,
        BackfillError,
        StagingError,
        DefinitionError,
        KernelError,
        HistoryError,
        OnlineStoreError,
        StreamError,
        ModelError,
    )


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="actor-risk")
def main() -> None:
    """Actor Risk: a real-time feature store and scoring server for actor risk control.

    Start with `actor-risk demo`, which does everything below in order. One by one:

    \b
      actor-risk up                      a Redis-compatible server (or set REDIS_URL)
      actor-risk simulate                labelled events: history to Parquet
      actor-risk apply                   feature_repo/ into the registry; --rollback takes it back
      actor-risk plan                    what a change to feature_repo/ would do
      actor-risk test --help             unit tests of features, without Redis
      actor-risk lineage --help          where a value comes from, and what reads it
      actor-risk backfill                history into online rows
      actor-risk stream                  live events into online rows (leave it running)
      actor-risk dead-letters list       events that could not be used, and why
      actor-risk train                   models from point-in-time features
      actor-risk models list             what there is; import one made elsewhere
      actor-risk rollout --help          what answers: canary, shadows, kill switch
      actor-risk serve                   the HTTP endpoint (leave it running)
      actor-risk keys --help             who may ask it, when others than this machine shall
      actor-risk score --help            ask it
      actor-risk top                     watch it
      actor-risk decisions sink --help   decisions to Parquet (leave it running)
      actor-risk explain --help          why: decisions and models, as bars or pictures
      actor-risk audit --help            served features, computed again from history

    Everything is kept below .local/ (ACTOR_RISK_HOME). With KAFKA_BOOTSTRAP_SERVERS set, events go through Kafka,
    otherwise through streams on the same Redis.
    """
