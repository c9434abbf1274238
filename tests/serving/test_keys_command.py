"""`actor-risk keys`: what it writes is what a server lets in."""

from __future__ import annotations

import re
import stat
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from actor_risk.cli import main
from serving.access import AccessFileError, Guard, KeyEntry, KeyFile, WatchedFile, change_keys, known_keys, read_keys
from serving.errors import ForbiddenError, TooManyRequestsError, UnauthorizedError
from tests.serving.doors import LIMIT, Times

KEY = re.compile(r"ark_[A-Za-z0-9_-]{43}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "access" / "keys.json"


def run(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["keys", *arguments], env={"ACTOR_RISK_ACCESS_KEYS": str(file), "COLUMNS": "200"})


def make(file: Path, *arguments: str) -> str:
    done = run(file, "new", *arguments)
    assert done.exit_code == 0, done.output
    key = done.output.strip()
    assert KEY.fullmatch(key)
    return key


def asked(key: str) -> dict[str, list[tuple[bytes, bytes]]]:
    return {"headers": [(b"x-api-key", key.encode())]}


def guard_of(file: Path) -> Guard:
    return Guard(Times().clock(), WatchedFile(file, partial(known_keys, default=LIMIT)))


def test_a_new_key_is_let_in_and_is_itself_nowhere(file: Path) -> None:
    key = make(file, "checkout", "--scope", "score")
    guard = guard_of(file)
    assert guard.admit(asked(key), "/v1/score").name == "checkout"
    with pytest.raises(ForbiddenError):
        guard.admit(asked(key), "/metrics")
    assert key not in file.read_text()
    assert key not in run(file, "list").output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["keys.json"]


def test_every_key_is_another(file: Path) -> None:
    made = [make(file, "checkout", "--scope", "score", "--scope", "admin") for _ in range(3)]
    guard = guard_of(file)
    assert {guard.admit(asked(key), "/metrics").name for key in made} == {"checkout"}
    assert len({*made, *(entry.id for entry in read_keys(file).keys)}) == 6


def test_expiry_and_limits_are_kept(file: Path) -> None:
    old = make(file, "old", "--scope", "score", "--expires", "2026-01-01T00:00:00Z")
    slow = make(file, "slow", "--scope", "score", "--rate", "0.1", "--burst", "1")
    guard = guard_of(file)
    with pytest.raises(UnauthorizedError):
        guard.admit(asked(old), "/v1/score")
    guard.admit(asked(slow), "/v1/score")
    with pytest.raises(TooManyRequestsError, match="again in 10 s"):
        guard.admit(asked(slow), "/v1/score")
    assert re.search(r"slow +\w{8} +score +0.1 +1", run(file, "list").output)


def test_a_key_is_revoked_by_its_id_or_all_of_a_client(file: Path) -> None:
    kept, gone = (make(file, "checkout", "--scope", "score") for _ in range(2))
    other = make(file, "other", "--scope", "score")
    gone_id = read_keys(file).keys[1].id
    assert run(file, "revoke", "checkout", "--id", gone_id).output == f"revoked: {gone_id}\n"
    guard = guard_of(file)
    with pytest.raises(UnauthorizedError):
        guard.admit(asked(gone), "/v1/score")
    assert guard.admit(asked(kept), "/v1/score").name == "checkout"
    run(file, "revoke", "checkout")
    assert guard.refresh()
    with pytest.raises(UnauthorizedError):
        guard.admit(asked(kept), "/v1/score")
    assert guard.admit(asked(other), "/v1/score").name == "other"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["new", "a b", "--scope", "score"], "name"),
        (["new", "token:x", "--scope", "score"], "name"),
        (["new", "x"], "--scope"),
        (["new", "x", "--scope", "root"], "root"),
        (["new", "x", "--scope", "score", "--rate", "0"], "--rate"),
        (["revoke", "nobody"], "actor-risk keys list"),
        (["revoke", "checkout", "--id", "00000000"], "actor-risk keys list"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(file: Path, arguments: list[str], told: str) -> None:
    make(file, "checkout", "--scope", "score")
    before = file.read_bytes()
    done = run(file, *arguments)
    assert done.exit_code != 0
    assert told in done.output
    assert file.read_bytes() == before


def test_a_file_that_is_not_understood_is_not_overwritten(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("keys: []")
    done = run(file, "new", "x", "--scope", "score")
    assert (done.exit_code, file.read_text()) == (1, "keys: []")
    assert f"{file}: it is not a file of keys" in done.output
    assert not KEY.search(done.output)


def test_without_a_file_it_is_asked_for() -> None:
    done = CliRunner().invoke(main, ["keys", "list"], env={"ACTOR_RISK_ACCESS_KEYS": ""})
    assert (done.exit_code, "ACTOR_RISK_ACCESS_KEYS" in done.output) == (2, True)


def test_changes_at_the_same_time_are_all_there(file: Path) -> None:
    def add(number: int) -> None:
        entry = KeyEntry(name=f"n{number}", sha256=f"{number:064x}", scopes=("score",))
        change_keys(file, lambda was: KeyFile((*was.keys, entry)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert {entry.name for entry in read_keys(file).keys} == {f"n{number}" for number in range(40)}


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    make(tmp_path / "link.json", "x", "--scope", "score")
    assert (tmp_path / "link.json").is_symlink()
    assert len(read_keys(tmp_path / "real.json").keys) == 1


def test_a_folder_that_is_a_file_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(AccessFileError, match="it cannot be"):
        change_keys(tmp_path / "x" / "keys.json", lambda was: was)
