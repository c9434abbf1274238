"""Audit: features as they were served, computed again from history as of the decisions' times, and compared."""

from actor_risk.audit.report import AuditReport, FeatureReport
from actor_risk.audit.run import AuditSettings, audit

__all__ = ["AuditReport", "AuditSettings", "FeatureReport", "audit"]
