"""Unit tests for features: events and expected values in a file, computed as training does and as serving does."""

from actor_risk.feature_tests.cases import Case, files_of, read_cases
from actor_risk.feature_tests.errors import CaseError
from actor_risk.feature_tests.report import CaseReport, Check, RunReport

__all__ = ["Case", "CaseError", "CaseReport", "Check", "RunReport", "files_of", "read_cases"]
