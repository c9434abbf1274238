"""What `actor-risk apply` says to somebody who wrote a wrong definition."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

WRONG = """
from feast import Entity

ip = Entity(name="ip", join_keys="ip")
"""
CONFIG = """
project: wrong
provider: local
registry: registry.db
entity_key_serialization_version: 3
online_store: {type: materialize.online.feast_store.PackedRedisOnlineStore}
"""


def test_an_argument_of_a_wrong_type_is_named(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "feature_store.yaml").write_text(CONFIG)
    (repo / "features.py").write_text(WRONG)
    environment = {**os.environ, "ACTOR_RISK_HOME": str(tmp_path / "home"), "ACTOR_RISK_FEATURE_REPO": str(repo)}
    command = [sys.executable, "-m", "actor_risk.cli", "apply"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert 'argument "join_keys"' in done.stderr
    assert "Traceback" not in done.stderr
