"""What a person should know of a trained model before it acts: one page of HTML, and the same numbers as JSON."""

from __future__ import annotations

from pathlib import Path

import msgspec

from models.bundle import Bundle
from models.report._figures import Report
from models.report._measure import measure_report
from models.report._page import page
from models.training_set import TrainingSet

__all__ = ["HTML_FILE", "JSON_FILE", "Report", "measure_report", "page", "write_report"]

HTML_FILE, JSON_FILE = "report.html", "report.json"


def write_report(bundle: Bundle, rows: TrainingSet, directory: Path) -> Path:
    """Writes `report.html` and `report.json` about a published model and the rows that it was trained on, and returns
    the path of the page. Equal models and rows give equal bytes.

    Raises TrainingError for other rows than those of the bundle's manifest.
    """
    report = measure_report(bundle, rows)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / JSON_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    (directory / HTML_FILE).write_text(page(report), encoding="utf-8")
    return directory / HTML_FILE
