"""What every benchmark says at its end: its figures, the command, the machine and the versions."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

LIBRARIES = ("feast", "ray", "redis", "onnxruntime", "numpy", "numba", "pyarrow", "kafka-python", "lightgbm", "shap")


def report(name: str, figures: Mapping[str, object], as_json: bool) -> None:
    """Print the figures for a person or, as one last line, for a program; and keep them in bench/results/."""
    record = {
        "benchmark": name,
        **figures,
        "command": f"python -m bench {' '.join(sys.argv[1:])}",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}},
    }
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    if as_json:
        print(json.dumps(record))
    else:
        for key, value in figures.items():
            print(f"{key:>28}  {value}")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
