"""`models`: bring a model in, see what there is, and say which version counts."""

from __future__ import annotations

import getpass
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from actor_risk.cli._shared import console, home, now_ms

if TYPE_CHECKING:
    from models.conformance import Check, Expected
    from models.manifest import Source

_ROWS_MAX = 5_000
_MARKS = {True: "[green]✓[/green]", False: "[red]✗[/red]", None: "[yellow]–[/yellow]"}

_file = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
_features = click.option(
    "--features",
    help="The graph's features in its order, with commas, or @FILE with one a line. Default: the file's metadata "
    "actor_risk.features (a JSON list).",
)
_missing = click.option(
    "--missing",
    multiple=True,
    metavar="NAME=VALUE",
    help="What replaces a missing value; * names all other features. Default: the file's metadata actor_risk.missing, "
    "else a missing value reaches the graph as NaN.",
)
_target = click.option("--target", help="Class (label or index) or target that is scored. Default: the second of two.")
_rows = click.option(
    "--rows",
    "rows_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Real rows (Parquet, one column for each feature).",
)
_expected = click.option(
    "--expected",
    "expected_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Reference rows with the framework's own scores in a column `score`; the graph must equal them to 1e-6.",
)


@click.group("models")
def models() -> None:
    """Models and their versions: import one, look at them, say which version is served.

    \b
      actor-risk models check model.onnx --expected reference.parquet
      actor-risk models import model.onnx --service ad_click_risk --features @features.txt
      actor-risk models show ad_click_risk
      actor-risk models alias ad_click_risk champion 0123456789abcdef

    A version is its content: publishing the same again changes nothing. `actor-risk train` publishes our own models.
    """


@models.command("import")
@_file
@click.option("--service", required=True, help="The feature service whose vectors the model reads.")
@click.option("--name", help="Name in the store. Default: the service's.")
@_features
@_missing
@_target
@click.option("--label", default="", help="What a high score means, for people.")
@click.option("--review", type=float, help="Scores from here on are reviewed. Default 0.5; a regression needs it.")
@click.option("--block", type=float, help="Scores from here on are blocked. Default 0.9; a regression needs it.")
@_rows
@_expected
@click.option("--alias", help="Point this alias at the new version, such as champion.")
def import_(
    file: Path,
    service: str,
    name: str | None,
    features: str | None,
    missing: Sequence[str],
    target: str | None,
    label: str,
    review: float | None,
    block: float | None,
    rows_file: Path | None,
    expected_file: Path | None,
    alias: str | None,
) -> None:
    """Publish an ONNX classifier or regressor that was made elsewhere.

    It must have one input of floats [N, F] and one answer; LightGBM, XGBoost, CatBoost and scikit-learn converters and
    neural networks write such files. It is checked as `models check` does, with real rows: --rows, else those of
    --expected, else the labelled rows of the service. Nothing is published unless everything holds. Only with
    --expected it is compared with the framework that trained it; without, a warning says that it was not.

    \b
      actor-risk models import model.onnx --service ad_click_risk --features @features.txt --missing '*=0'
      actor-risk models import model.onnx --service ad_click_risk --expected reference.parquet --alias champion
    """
    from actor_risk.model_import import labelled_rows, read_expected, read_rows, registry_of
    from materialize.online import read_plan
    from models.importing import ImportSpec, features_of, import_model
    from models.manifest import Service

    here, content = home(), _content(file)
    store = registry_of(here)
    plan = read_plan(store, service)
    spec = ImportSpec(
        model_name=name or service,
        file=file.name,
        service=Service(name=service, fingerprint=plan.fingerprint),
        service_refs=plan.features,
        features=_names(features),
        missing=_replacements(missing) if missing else None,
        target=target,
        label=label,
        review=review,
        block=block,
    )
    read = features_of(content, spec)
    refs = [feature.ref for feature in read]
    expected = None if expected_file is None else read_expected(expected_file, refs)
    if rows_file is not None:
        rows = read_rows(rows_file, refs)
    else:
        rows = labelled_rows(store, here, service, refs, _ROWS_MAX) if expected is None else expected.rows
    done = import_model(content, spec, read, rows, expected)
    _show(done.report.checks, expected)
    bundles = here.model_store()
    version = bundles.publish(done.draft)
    click.echo(f"published {spec.model_name} {version}")
    if alias is not None:
        bundles.set_alias(spec.model_name, alias, version, at_ms=now_ms(), by=f"{getpass.getuser()}, models import")
        click.echo(f"{alias} is {version}")


@models.command()
@_file
@_target
@_missing
@_features
@_rows
@_expected
@click.pass_context
def check(
    context: click.Context,
    file: Path,
    target: str | None,
    missing: Sequence[str],
    features: str | None,
    rows_file: Path | None,
    expected_file: Path | None,
) -> None:
    """Put an ONNX file through everything that serving needs, and publish nothing.

    Without rows, some are made up around the graph's thresholds. `–` marks what could not be checked, or what to know.
    Ends with 1 when something does not hold.
    """
    from actor_risk.model_import import read_expected, read_rows
    from models.conformance import check_model

    names = _names(features)
    if (rows_file or expected_file) and not names:
        raise click.UsageError("--rows and --expected need --features: the order in which the graph reads the columns")
    expected: Expected | None = None if expected_file is None else read_expected(expected_file, names)
    report = check_model(
        _content(file),
        rows=None if rows_file is None else read_rows(rows_file, names),
        expected=expected,
        target=target,
        width=len(names) or None,
        replacements=_fill(names, missing),
    )
    _show(report.checks, expected)
    if report.failures:
        context.exit(1)


@models.command("list")
def list_() -> None:
    """Every model, with its aliases and versions."""
    store = home().model_store()
    table = Table("model", "versions", "aliases", box=None)
    for model in store.models():
        aliases = ", ".join(f"{alias} = {version}" for alias, version in sorted(store.aliases(model).items()))
        table.add_row(model, str(len(store.versions(model))), aliases or "none: actor-risk models alias")
    console().print(table)


@models.command()
@click.argument("model")
def show(model: str) -> None:
    """One model: its versions with what they are and how good, its aliases, and how these changed."""
    from models import BundleNotFoundError

    store, shown = home().model_store(), console()
    versions = store.versions(model)
    if not versions:
        raise BundleNotFoundError(f"there is no model {model!r}: there are {', '.join(store.models()) or 'none'}")
    held: dict[str, list[str]] = {}
    for alias, version in store.aliases(model).items():
        held.setdefault(version, []).append(alias)
    table = Table(
        "version", "aliases", "features", "margin", "explained", "review", "block", "ROC AUC", "from", box=None
    )
    for version in versions:
        card = store.manifest(model, version)
        table.add_row(
            version,
            ", ".join(sorted(held.get(version, []))),
            str(len(card.features)),
            card.explanation.output_space,
            card.explanation.method,
            f"{card.thresholds.review:.4g}",
            f"{card.thresholds.block:.4g}",
            "" if card.metrics is None else f"{card.metrics.roc_auc:.3f}",
            escape(_origin(card.source)),
        )
    shown.print(table)
    history = Table("at (UTC)", "alias", "version", "by", box=None)
    for change in store.history(model):
        when = datetime.fromtimestamp(change.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        history.add_row(when, change.alias, change.version, escape(change.by))
    if history.row_count:
        shown.print(history)


@models.command()
@click.argument("model")
@click.argument("name")
@click.argument("version")
@click.option("--by", default=getpass.getuser, help="Who or what decides it. Default: you.")
@click.option("--instead-of", metavar="VERSION", help="Only if the alias points at this version until then.")
def alias(model: str, name: str, version: str, by: str, instead_of: str | None) -> None:
    """Point alias NAME of MODEL at VERSION, from one moment to the next; the change is kept in the history.

    The version is proven intact first. If somebody else changes the alias meanwhile, nothing happens but a message.
    Servers take it when they load: name the version in `user_config`, or restart.

    \b
      actor-risk models alias ad_click_risk champion 0123456789abcdef
    """
    home().model_store().set_alias(model, name, version, at_ms=now_ms(), by=by, instead_of=instead_of)
    click.echo(f"{name} of {model} is {version}")


def _content(file: Path) -> bytes:
    from models.admission import MODEL_BYTES_MAX

    size = file.stat().st_size
    if size > MODEL_BYTES_MAX:
        raise click.ClickException(f"{file} has {size:,} bytes, more than {MODEL_BYTES_MAX:,}: it is not read")
    return file.read_bytes()


def _names(given: str | None) -> tuple[str, ...]:
    if given is None:
        return ()
    lines = Path(given[1:]).read_text().splitlines() if given.startswith("@") else given.split(",")
    return tuple(name for line in lines if (name := line.strip()))


def _replacements(given: Sequence[str]) -> dict[str, float]:
    found = {}
    for text in given:
        name, _, value = text.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE with a number", param_hint="--missing") from None
    return found


def _fill(names: Sequence[str], missing: Sequence[str]) -> list[float] | float | None:
    """What replaces missing values: one number for each name, or one for all."""
    given = _replacements(missing)
    rest = given.pop("*", None)
    unread = sorted(set(given) - set(names))
    if unread:
        raise click.UsageError(f"--missing names {', '.join(unread)}, which --features does not")
    return [given.get(name, math.nan if rest is None else rest) for name in names] if names else rest


def _show(checks: Sequence[Check], expected: Expected | None) -> None:
    table = Table("", "checked", "found", box=None)
    for entry in checks:
        table.add_row(_MARKS[entry.passed], escape(entry.name), escape(entry.detail))
    console().print(table)
    if expected is None:
        click.echo(
            "warning: not compared with the framework that trained it, only with itself. Give rows with the "
            "framework's own scores, --expected FILE; docs/howto/import-a-model.md says how.",
            err=True,
        )


def _origin(source: Source | None) -> str:
    if source is None:
        return "training"
    return f"{source.file} ({source.producer})" + (", not compared" if source.compared_rows == 0 else "")
