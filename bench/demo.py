"""How long the whole job takes with the environment in place, and what its models are worth. Bar: 90 seconds."""

from __future__ import annotations

import json
import re
import subprocess
import time

from bench.report import report


def run(as_json: bool) -> None:
    """Time `make demo ONCE=1` once, from the first to the last byte, and check its answer."""
    began = time.perf_counter()
    done = subprocess.run(["make", "demo", "ONCE=1"], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    answer = json.loads(done.stdout.splitlines()[-1])
    explained = answer["base_value"] + sum(r["attribution"] for r in answer["reasons"]) + answer["attributions_rest"]
    change = re.search(r"went from ([\d.]+) to ([\d.]+)", done.stderr)
    areas = [float(area) for area in re.findall(r"ROC AUC ([\d.]+)", done.stderr)]
    precisions = [float(area) for area in re.findall(r"PR AUC ([\d.]+)", done.stderr)]
    assert change is not None
    figures = {
        "demo_s": round(seconds, 1),
        "demo_bar_s": 90,
        "roc_auc_ad_click_risk": areas[0],
        "roc_auc_advertiser_risk": areas[1],
        "pr_auc_ad_click_risk": precisions[0],
        "pr_auc_advertiser_risk": precisions[1],
        "score_before": float(change.group(1)),
        "score_after": float(change.group(2)),
        "additivity_error": abs(explained - answer["margin"]),
        "latency_ms": answer["latency_ms"],
    }
    report("demo", figures, as_json)
