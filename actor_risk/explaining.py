"""Explanations from what they are kept in: decision records, the decision log, a model and rows."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from actor_risk.audit.decisions import log_files, log_lines, may_have
from actor_risk.errors import ActorRiskError
from materialize.personal import told
from models import Bundle, Explanation, ModelStore

Floats = NDArray[np.float64]
Record = dict[str, Any]
By = Literal["feature", "reason"]

REST = "everything else"
ROWS_MAX = 10_000
_TOLERANCE = 1e-6
_ID_SLACK_MS = 60_000


@dataclass(frozen=True)
class Explained:
    """N explained rows. names: F features or reasons. data: float64[N, F], None where there is nothing to show.

    families: for each name the reason that it belongs to, None where names are reasons.
    """

    title: str
    explanation: Explanation
    names: tuple[str, ...]
    data: Floats | None
    families: tuple[str, ...] | None

    def margins(self) -> Floats:
        """float64[N]: base value + attributions."""
        margins: Floats = self.explanation.base_value + self.explanation.attributions.sum(axis=1)
        return margins

    def by_reason(self) -> Explained:
        """The same with the features of one family added up."""
        if self.families is None:
            return self
        names = tuple(dict.fromkeys(self.families))
        places = np.array([names.index(family) for family in self.families])
        sums = np.zeros((len(self.explanation.attributions), len(names)))
        np.add.at(sums.T, places, self.explanation.attributions.T)
        explanation = replace(self.explanation, attributions=sums, standard_errors=None)
        return Explained(self.title, explanation, names, None, None)


def read_records(files: Sequence[Path | None]) -> list[Record]:
    """The decision records in these files (None: standard input), each a record, a list of them, or one a line.

    Raises ActorRiskError.
    """
    return [record for file in files for record in _records(file)]


def logged_record(folder: Path, decision_id: str, store: Callable[[], ModelStore]) -> Explained:
    """A decision of the decision log, explained in full: as it was answered, or by its model from the logged values.

    Raises ActorRiskError when it is not there, ModelError when its model is not.
    """
    record, layout, entry = _logged(folder, decision_id)
    if record["features"] is not None:
        return of_records([record], "feature")
    model = record["model"]
    bundle = store().load(model["name"], model["version"])
    values = dict(zip(layout["features"], entry["values"], strict=True))
    refs = [feature.ref for feature in bundle.manifest.features]
    row = np.array([[_number(entry["others"].get(ref, values.get(ref))) for ref in refs]])
    found = of_rows(bundle, row, _title(record))
    if not _close(float(found.margins()[0]), record["margin"]):
        raise ActorRiskError(
            f"decision {decision_id}: model {model['version']} gives the margin {found.margins()[0]:.6f} for the "
            f"logged values, the answer said {record['margin']:.6f}: the values were not logged in full"
        )
    return found


def of_records(records: Sequence[Record], by: By | None) -> Explained:
    """One model version's records. `by` None: by feature if all of them were asked with `explain: full`.

    Raises ActorRiskError for records that do not fit together, carry no explanation, or do not add up.
    """
    if not records:
        raise ActorRiskError("there is no decision record to explain")
    try:
        return _of_records(records, by)
    except (KeyError, TypeError) as error:
        raise ActorRiskError(f"this is no decision record of a server of this release: {told(error)}") from error


def of_rows(bundle: Bundle, rows: Floats, title: str | None = None) -> Explained:
    """Rows float64[N, F] as they arrive (NaN: missing), explained by a model."""
    manifest = bundle.manifest
    texts = {reason.family: reason.analyst for reason in manifest.reasons}
    return Explained(
        title or f"{manifest.model_name} {bundle.version}",
        bundle.explain(bundle.vector(rows)),
        tuple(_short(feature.ref) for feature in manifest.features),
        rows,
        tuple(texts.get(feature.family) or _short(feature.ref) for feature in manifest.features),
    )


def read_rows(bundle: Bundle, file: Path) -> Floats:
    """The columns of a Parquet file that the model reads, float64[N, F]; named with or without their view.

    Raises ActorRiskError.
    """
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise ActorRiskError(f"{file} cannot be read as Parquet: {error}") from error
    refs = [feature.ref for feature in bundle.manifest.features]
    columns = [ref if ref in table.column_names else _short(ref) for ref in refs]
    absent = sorted(set(columns) - set(table.column_names))
    if absent or not table.num_rows:
        raise ActorRiskError(f"{file} has {table.num_rows} rows and lacks the columns {absent}: give every feature")
    if table.num_rows > ROWS_MAX:
        raise ActorRiskError(f"{file} has {table.num_rows:,} rows: take a sample of at most {ROWS_MAX:,}")
    try:
        return np.column_stack([table.column(name).cast(pa.float64()).to_numpy().astype(float) for name in columns])
    except pa.ArrowException as error:
        raise ActorRiskError(f"{file}: features must be numbers: {error}") from error


def _of_records(records: Sequence[Record], by: By | None) -> Explained:
    first = records[0]
    if any(record["base_value"] is None for record in records):
        raise ActorRiskError("a record carries no explanation: ask with `explain: full`, or `top`")
    if len({(r["model"]["name"], r["model"]["version"]) for r in records}) > 1:
        raise ActorRiskError("the records are of several models or versions, whose base values differ: take one")
    full = all(record["features"] is not None for record in records)
    if not full and (by == "feature" or len(records) > 1):
        raise ActorRiskError("a record names only its reasons: ask with `explain: full`, or show one record by reason")
    found = _full(records) if full else _of_reasons(first)
    for margin, record in zip(found.margins(), records, strict=True):
        if not _close(float(margin), record["margin"]):
            raise ActorRiskError(
                f"decision {record['decision_id']} does not add up: {margin} is not {record['margin']}"
            )
    return found.by_reason() if by == "reason" else found


def _full(records: Sequence[Record]) -> Explained:
    first = records[0]
    texts = {reason["family"]: reason["description"] for record in records for reason in record["reasons"]}
    features = first["features"]
    attributions = np.array([[feature["attribution"] for feature in record["features"]] for record in records])
    data = np.array([[_number(feature["value"]) for feature in record["features"]] for record in records])
    families = tuple(
        _short(feature["feature"]) if feature["family"] == feature["feature"] else _family(feature["family"], texts)
        for feature in features
    )
    names = tuple(_short(feature["feature"]) for feature in features)
    return Explained(_title(*records), _explanation(first, attributions), names, data, families)


def _of_reasons(record: Record) -> Explained:
    names = (*(reason["description"] for reason in record["reasons"]), REST)
    attributions = np.array([[*(reason["attribution"] for reason in record["reasons"]), record["attributions_rest"]]])
    return Explained(_title(record), _explanation(record, attributions), names, None, None)


def _explanation(record: Record, attributions: Floats) -> Explanation:
    return Explanation(float(record["base_value"]), attributions, record["reference"], record["output_space"])


def _family(family: str, texts: dict[str, str]) -> str:
    return texts.get(family, family)


def _title(*records: Record) -> str:
    model = f"{records[0]['model']['name']} {records[0]['model']['version']}"
    if len(records) > 1:
        return f"{model}, {len(records)} decisions"
    (record,) = records
    return f"{model}\ndecision {record['decision_id']}: score {record['score']:.3f}, {record['verdict']}"


def _short(ref: str) -> str:
    """Names of features are unique within a service, so the view can go."""
    return ref.rsplit(":", 1)[-1]


def _number(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def _close(found: float, stated: float) -> bool:
    return abs(found - stated) <= _TOLERANCE * max(1.0, abs(stated))


def _records(file: Path | None) -> list[Record]:
    called = "standard input" if file is None else str(file)
    try:
        text = _text(file)
        try:
            found = json.loads(text)
        except json.JSONDecodeError:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ActorRiskError(f"{called} holds no decision record as JSON: {error}") from error
    records = found if isinstance(found, list) else [found]
    # A line of the decision log holds the record in `decision`; lines of its layouts hold none.
    return [r.get("decision", r) for r in records if isinstance(r, dict) and r.get("kind") != "features"]


def _text(file: Path | None) -> str:
    return sys.stdin.read() if file is None else file.read_text()


def _logged(folder: Path, decision_id: str) -> tuple[Record, Record, Record]:
    """The record, the layout of its values, and the whole entry."""
    at_ms = _time_of(decision_id)
    wanted = decision_id.encode()
    for file in log_files(folder, at_ms - _ID_SLACK_MS, at_ms + _ID_SLACK_MS):
        if not may_have(file, at_ms):
            continue
        layouts: dict[tuple[str, str], Record] = {}
        for line in log_lines(file):
            if b'"kind":"features"' in line:
                layout = json.loads(line)
                layouts[layout["service"], layout["fingerprint"]] = layout
            elif wanted in line:
                entry = json.loads(line)
                record = entry["decision"]
                if record["decision_id"] == decision_id:
                    return record, layouts[record["service"]["name"], record["service"]["fingerprint"]], entry
    raise ActorRiskError(f"decision {decision_id} is not in the log at {folder}: it may be older than what is kept")


def _time_of(decision_id: str) -> int:
    """The milliseconds UTC in a UUID of version 7."""
    try:
        found = UUID(decision_id)
    except ValueError as error:
        raise ActorRiskError(f"{decision_id!r} is no decision id: it stands in the record as `decision_id`") from error
    return found.int >> 80
