"""An audit's report without the values of persons: the ids of decisions lead to them."""

from __future__ import annotations

from msgspec.structs import replace

from actor_risk.audit.report import AuditReport, Example, FeatureReport
from materialize.personal import MASK, Personal


def without_persons(report: AuditReport, personal: Personal) -> AuditReport:
    """The report with `***` for personal keys and for values of personal features, of which nothing is drawn."""
    return replace(report, features=[_masked(feature, personal) for feature in report.features])


def _masked(feature: FeatureReport, personal: Personal) -> FeatureReport:
    is_personal = personal.hides(feature.feature.rpartition(":")[2])
    examples = [_masked_example(one, personal, is_personal) for one in feature.examples]
    return replace(feature, examples=examples, points=[] if is_personal else feature.points)


def _masked_example(example: Example, personal: Personal, is_personal: bool) -> Example:
    entities = {key: personal.value(key, value) for key, value in example.entities.items()}
    if not is_personal:
        return replace(example, entities=entities)
    return replace(example, entities=entities, online=MASK, offline=MASK)
