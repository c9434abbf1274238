"""What a registry has is what was applied to it: nothing looks changed, and all that rows are known by is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from actor_risk.changes.differences import changes
from actor_risk.changes.registered import Registered, differences, in_a_line
from actor_risk.changes.registry_described import registry_definition
from actor_risk.changes.registry_file import registered_in
from actor_risk.errors import ActorRiskError
from actor_risk.feast_repo import apply_repo
from tests.changes.repos import demo_repo, opened, small_repo


@pytest.mark.parametrize("repo_of", [demo_repo, small_repo])
def test_a_registry_is_described_as_its_repository_is(repo_of: object, tmp_path: Path) -> None:
    assert callable(repo_of)
    repo, data = repo_of(tmp_path), tmp_path / "data"
    with opened(repo, data, tmp_path / "registry") as (definition, store):
        assert store is not None
        found = registry_definition(store, repo, data)
    assert changes(definition, found) == ()
    for one, other in zip(definition.views, found.views, strict=True):
        assert (one.fingerprint, one.code, one.inputs, one.features) == (
            other.fingerprint,
            other.code,
            other.inputs,
            other.features,
        )
    assert [one.fingerprint for one in definition.services] == [one.fingerprint for one in found.services]


def test_applying_again_changes_no_digest_and_a_change_only_that_of_what_is_changed(tmp_path: Path) -> None:
    repo, data = small_repo(tmp_path), {"ACTOR_RISK_DATA": str(tmp_path / "data")}
    file, registry, other = repo / "definitions.py", tmp_path / "registry.db", tmp_path / "other.db"
    apply_repo(repo, registry, data)
    first = registered_in(registry)
    apply_repo(repo, registry, data)
    apply_repo(repo, other, data)
    assert registered_in(registry) == registered_in(other) == first
    file.write_text(file.read_text().replace("timedelta(days=2)", "timedelta(days=3)"))
    apply_repo(repo, registry, data)
    assert differences(first, registered_in(registry)) == ["changed view ip_stats"]


def test_no_registry_defines_nothing_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    assert registered_in(tmp_path / "none.db") == Registered()
    assert Registered().fingerprint == ""
    (tmp_path / "damaged.db").write_bytes(b"\xff" * 40)
    with pytest.raises(ActorRiskError, match="no Feast registry"):
        registered_in(tmp_path / "damaged.db")


def test_of_many_differences_the_first_are_named() -> None:
    found = differences(Registered(), Registered({f"view v{number}": "x" for number in range(9)}))
    assert in_a_line(found).endswith("added view v5, and 3 more")
