"""What is wrong with a change, by a stable code: what happened, to what, where, and what to write instead."""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["error", "warning", "note"]


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of finding. An error is refused by `plan` and by `apply`, a warning by `--strict`; a note is told only."""

    title: str
    severity: Severity
    waivable: bool = True


def _error(title: str, *, waivable: bool = True) -> Code:
    return Code(title=title, severity="error", waivable=waivable)


def _warning(title: str) -> Code:
    return Code(title=title, severity="warning")


def _note(title: str) -> Code:
    return Code(title=title, severity="note")


CODES: dict[str, Code] = {
    # The repository itself
    "AR001": _error("a file is not valid Python", waivable=False),
    "AR002": _error("the repository cannot be imported", waivable=False),
    "AR003": _error("importing the repository takes too long", waivable=False),
    "AR004": _error("the repository calls the network or starts a program while it is imported", waivable=False),
    "AR005": _warning("the repository prints while it is imported"),
    "AR006": _error("a definition cannot be computed", waivable=False),
    # What it breaks
    "AR101": _error("a served feature is removed"),
    "AR102": _error("a served feature is changed in place"),
    "AR103": _error("an entity of served features is removed, renamed or keyed otherwise"),
    "AR104": _error("the source of served features is changed in place"),
    "AR105": _error("a service that a model reads gives something else"),
    "AR106": _error("a served view is renamed"),
    "AR107": _warning("served features expire sooner"),
    "AR108": _warning("rows of a served view have to be filled again"),
    # Leakage
    "AR201": _error("a feature sees past its as-of time"),
    "AR202": _error("a label column is in a source or a feature"),
    "AR203": _error("a column is known only after the event"),
    "AR204": _warning("one feature alone predicts the label too well"),
    # Values
    "AR301": _error("nearly all values of a feature are now null"),
    "AR302": _warning("a feature has one value only"),
    "AR303": _warning("values of a feature moved"),
    "AR304": _error("a transformation fails on the sample"),
    "AR305": _error("values of a feature are in another unit"),
    "AR306": _warning("values of a feature are infinite"),
    # Conventions
    "AR401": _warning("no owner"),
    "AR402": _warning("no description"),
    "AR403": _warning("no tier"),
    "AR404": _error("a field about a person carries no pii tag"),
    "AR405": _warning("no TTL, or one shorter than the windows"),
    "AR406": _warning("a name that is not in the form of the others"),
    "AR407": _error("a hop that does not divide its window"),
    "AR408": _warning("a distinct count that grows without bound"),
    "AR409": _error("a name that contradicts its window"),
    # Costs
    "AR501": _warning("rows grow a lot"),
    "AR502": _note("requests read more rows"),
    # Waivers
    "AR601": _warning("a waiver that cannot waive"),
    "AR602": _note("a waiver that waives nothing"),
}

PAGE = "docs/findings.md"


def page(code: str) -> str:
    """Where the code is explained, below the project's folder."""
    return f"{PAGE}#{code.lower()}"


class Finding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One finding. subject: what it is about, `view:feature`, `view`, `entity` …; instead: exactly what to write.

    waived: the reason that a tag `waive:<code>` of the subject, or of the view, source or service around it, gives.
    """

    code: str
    subject: str
    message: str
    instead: str = ""
    place: str = ""
    waived: str = ""

    @property
    def severity(self) -> Severity:
        """A waived finding is a note."""
        return "note" if self.waived else CODES[self.code].severity
