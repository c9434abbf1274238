"""What a bundle says about itself: everything that a score depends on, and where it came from."""

from __future__ import annotations

import math
import re

import msgspec

from models.errors import BundleCorruptError, InputError

SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""Version 1 had graphs of one kind only; what it does not say is the default of `GraphSpec` and `ExplanationSpec`."""


_FAMILY = re.compile(r"[a-z][a-z0-9_]{0,63}")
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_ACTOR_TEXT = re.compile(r"[^\d_:;{}<>@/\\\n]{1,200}")
UNNAMED_ACTOR_TEXT = "Activity that is not usual"
"""What an actor is told of a feature that the catalogue does not name."""


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input of the model. `missing` replaces a missing value; None lets it pass to the model as NaN.

    `family` names the reason under which its attribution is added up; without one, the feature is a reason by itself.
    """

    ref: str
    code: str
    missing: float | None = None
    description: str = ""
    family: str = ""

    def __post_init__(self) -> None:
        """Raises InputError for a replacement that is no finite number, which JSON cannot hold."""
        if self.missing is not None and not math.isfinite(self.missing):
            raise InputError(f"feature {self.ref!r}: a missing value becomes a finite number, got {self.missing}")


class ReasonText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the catalogue of reasons: what a family of features is called, by whom.

    code      stable public identifier: programs depend on it, it never changes its meaning
    analyst   for the people who review decisions
    actor     may be shown to the actor. It is a constant, so that no value and no other actor can get into it, and has
              no digits and no names of features, so that it gives no threshold and no window away
    """

    family: str
    code: str
    analyst: str
    actor: str

    def __post_init__(self) -> None:
        """Raises InputError for a text that does not keep these rules."""
        if not (_FAMILY.fullmatch(self.family) and _CODE.fullmatch(self.code)):
            raise InputError(
                f"reason {self.family!r} with code {self.code!r}: families are written ip_velocity, codes IP_VELOCITY"
            )
        if not self.analyst.strip():
            raise InputError(f"reason {self.family!r} has no text for analysts: say what it means")
        if not (self.actor.strip() and _ACTOR_TEXT.fullmatch(self.actor)):
            raise InputError(
                f"reason {self.family!r}: the text for the actor must be words in one line of at most 200 characters, "
                f"without digits, underscores or brackets, so that it gives no threshold away: {self.actor[:60]!r}"
            )


class Service(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The feature service whose vectors the model reads, and the fingerprint of its definition."""

    name: str
    fingerprint: str


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scores from which on an actor is reviewed or blocked, of a regression values in its own unit.

    The promise that a threshold was chosen for, in the tune span, is a precision, or of `review` that at most
    `review_per_day` cases come up for review (and are not blocked). None of them: it was set by hand.
    """

    review: float
    block: float
    review_precision: float | None = None
    block_precision: float | None = None
    review_per_day: float | None = None

    def __post_init__(self) -> None:
        """Raises InputError for thresholds in the wrong order, for infinity and NaN, which JSON cannot hold, and for
        promises that cannot be kept."""
        if not (math.isfinite(self.review) and math.isfinite(self.block)):
            raise InputError(f"thresholds are finite numbers, got {self.review} and {self.block}")
        if not self.review <= self.block:
            raise InputError(f"thresholds need review <= block, got {self.review} and {self.block}")
        for name in ("review_precision", "block_precision"):
            precision = getattr(self, name)
            if precision is not None and not 0 < precision <= 1:
                raise InputError(f"{name} is a share, above 0 and at most 1, got {precision}")
        if self.review_per_day is not None and not 0 < self.review_per_day < math.inf:
            raise InputError(f"review_per_day is a finite number above 0, got {self.review_per_day}")


class OperatingPoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What flagging every score >= `threshold` does. `precision` is None when nothing is flagged."""

    threshold: float
    flagged: int
    precision: float | None
    recall: float


class Metrics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Quality on rows later than all rows that the model or its thresholds were fitted on."""

    rows: int
    positives: int
    base_rate: float
    mean_score: float
    roc_auc: float
    pr_auc: float
    log_loss: float
    review: OperatingPoint
    block: OperatingPoint


class TrainingData(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows behind the model: fingerprint of their content, and the three spans of event time (ms UTC).

    Trees are fitted on [start_ms, tune_ms), thresholds on [tune_ms, test_ms), metrics on [test_ms, end_ms].
    """

    fingerprint: str
    rows: int
    positives: int
    start_ms: int
    tune_ms: int
    test_ms: int
    end_ms: int


class ExplanationSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What attributions are measured from: `base_value` is the mean margin of the rows in the file `background`.

    `output_space` is the margin's (see `models.graph`), `method` how it is split: exactly (`interventional_trees`,
    `path_dependent_trees`, `linear`) or by `sampling`. Path-dependent base values are of the training rows instead.
    """

    base_value: float
    reference: str
    output_space: str
    background: str
    method: str = "interventional_trees"


class GraphSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the graph reads and which of its answers counts.

    input_type   "float": values are rounded to float32 before they are scored, or "double"
    target       index of the class or target that is scored, `target_name` its label if it has one
    preparation  operators in front of the model that treat each feature alone, in order
    """

    input_type: str = "double"
    target: int = 0
    target_name: str = ""
    preparation: tuple[str, ...] = ()


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that a bundle was imported from: its name, SHA-256, and the program that wrote it.

    `compared_rows`: of how many rows its scores were compared with those of the framework that trained it; 0: of none,
    None: by a release that did not say.
    """

    file: str
    sha256: str
    producer: str
    compared_rows: int | None = None


class ModelCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a manifest that the publisher writes."""

    model_name: str
    label: str
    service: Service
    features: tuple[Feature, ...]
    thresholds: Thresholds
    calibration: str
    training: TrainingData | None = None
    metrics: Metrics | None = None
    settings: dict[str, float | str | list[str] | None] = {}
    source: Source | None = None
    code_fingerprint: str = ""
    libraries: dict[str, str] = {}
    reasons: tuple[ReasonText, ...] = ()

    def __post_init__(self) -> None:
        for name, values in (("ref", [f.ref for f in self.features]), ("code", [f.code for f in self.features])):
            repeated = _repeated(values)
            if repeated or not values:
                raise InputError(f"features need one distinct {name} each; repeated: {repeated}")
        families = [reason.family for reason in self.reasons]
        codes = [reason.code for reason in self.reasons] + [f.code for f in self.features if not f.family]
        if _repeated(families) or _repeated(codes):
            raise InputError(f"reasons need a family and a code of their own: {_repeated(families) + _repeated(codes)}")
        unknown = sorted({f.family for f in self.features if f.family} - set(families))
        if unknown:
            raise InputError(f"features are in the families {unknown}, which have no reason: add them to `reasons`")


class Manifest(ModelCard, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A card with what publishing adds. `files` maps each file of the bundle to the SHA-256 of its content."""

    schema_version: int
    explanation: ExplanationSpec
    files: dict[str, str]
    graph: GraphSpec = GraphSpec()


def _repeated(values: list[str]) -> list[str]:
    return sorted({value for value in values if values.count(value) > 1})


def reason_code(ref: str) -> str:
    """The default public code of `view:feature`: `VIEW_FEATURE` in upper case, other signs as `_`."""
    return re.sub(r"[^A-Z0-9]+", "_", ref.upper()).strip("_")


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as indented JSON; equal manifests give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n"


def decode_manifest(content: bytes) -> Manifest:
    """Raises BundleCorruptError for JSON that is no manifest of one of READABLE_VERSIONS."""
    try:
        version = msgspec.json.decode(content, type=_Versioned).schema_version
        if version not in READABLE_VERSIONS:
            raise BundleCorruptError(
                f"manifest.json has schema version {version}, this release reads {READABLE_VERSIONS}: publish again"
            )
        return msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, InputError) as error:
        raise BundleCorruptError(f"manifest.json does not fit its schema ({error}): publish the model again") from error


class _Versioned(msgspec.Struct):
    schema_version: int
