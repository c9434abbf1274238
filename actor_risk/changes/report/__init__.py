"""What a plan says, to people at a terminal, in a comment and in a file, and to programs."""

from actor_risk.changes.report.document import FORMAT, Document, json, read_json
from actor_risk.changes.report.html import html
from actor_risk.changes.report.markdown import LENGTH_MAX, MARKER, markdown
from actor_risk.changes.report.summary import exit_code, headline, verdict
from actor_risk.changes.report.terminal import terminal

__all__ = [
    "FORMAT",
    "LENGTH_MAX",
    "MARKER",
    "Document",
    "exit_code",
    "headline",
    "html",
    "json",
    "markdown",
    "read_json",
    "terminal",
    "verdict",
]
