"""What the words of an audit's report mean."""

from __future__ import annotations

REASONS = {
    "other_definition": "made with another definition of the feature service than the registry has now",
    "unknown_service": "made with a feature service that the registry does not have",
    "rows_refused": "degraded: a stored row could not be read, and its features were served as NOT_FOUND",
    "event_not_merged": "degraded: a view could not use the scored event",
    "windows_inexact": "degraded: read as of a time that the rows no longer hold in full",
    "on_demand_failed": "degraded: an on-demand function failed while serving",
    "features_partial": "degraded: some stored features could not be read, for a shard of the store was away",
    "features_defaulted": "degraded: the stored features could not be read, or not in time",
    "fallback_model": "degraded: a model answered that needs no stored feature, and none was read",
    "fallback_score": "degraded: the policy's score, and no feature was read",
    "beyond_history": "the decision is later than the history that the feature rests on",
    "on_demand_failed_offline": "an on-demand function failed while computing again",
    "kind_without_comparison": "values of this type are not compared",
}

OUTCOMES = {
    "mismatched": "two values that differ",
    "only_online": "served, but history has no value",
    "only_offline": "history has a value, but none was served",
    "late": "equal once what the log took after the decision, or within the lag before it, is left out",
    "equal": "equal",
}
