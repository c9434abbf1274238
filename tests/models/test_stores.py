"""One list of promises, kept by every kind of store."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from actor_risk.local import wait_until
from models import (
    CHALLENGER,
    CHAMPION,
    AliasChange,
    AliasMovedError,
    BundleCorruptError,
    BundleNotFoundError,
    ModelStore,
    StoreUnavailableError,
    UnsafeNameError,
    UnsupportedStoreError,
)
from models.bundle import build_files, version_of
from models.storage import RemoteStorage, Storage, storage_of
from tests.models.builders import draft
from tests.models.object_files import ObjectFiles, object_storage

MODEL = "ad_click_risk"
KINDS = ("directory", "file", "memory", "objects")

Opened = Callable[[], Storage]


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """Opens the same empty storage, each time as another process would."""
    address = f"memory://{uuid.uuid4().hex}"
    kinds: dict[str, Opened] = {
        "directory": lambda: storage_of(tmp_path / "store"),
        "file": lambda: storage_of(f"file://{tmp_path}/a%20store"),
        "memory": lambda: storage_of(f"{address}/models", tmp_path / "cache"),
        "objects": lambda: object_storage(tmp_path / "store", tmp_path / "cache"),
    }
    yield kinds[request.param]
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def test_what_one_store_publishes_another_one_loads(opened: Opened) -> None:
    version = ModelStore(opened()).publish(draft())
    assert ModelStore(opened()).publish(draft()) == version
    store = ModelStore(opened())
    assert (store.models(), store.versions(MODEL)) == ([MODEL], [version])
    first, again = store.load(MODEL, version), store.load(MODEL, version)
    assert first.version == again.version == version
    assert first.manifest == again.manifest


def test_an_empty_store_has_nothing(opened: Opened) -> None:
    store = ModelStore(opened())
    assert (store.models(), store.versions(MODEL), store.aliases(MODEL), store.history(MODEL)) == ([], [], {}, [])
    with pytest.raises(BundleNotFoundError, match="no version"):
        store.load(MODEL, "0" * 16)
    with pytest.raises(BundleNotFoundError, match="no alias"):
        store.load(MODEL)


def test_an_alias_points_at_its_last_version_and_keeps_its_history(opened: Opened) -> None:
    store = ModelStore(opened())
    first, second = store.publish(draft()), store.publish(draft(high=3.0))
    store.set_alias(MODEL, CHAMPION, first, at_ms=1, by="trainer")
    store.set_alias(MODEL, CHALLENGER, second, at_ms=2, by="trainer")
    store.set_alias(MODEL, CHAMPION, second, at_ms=3, by="on call")
    store.set_alias(MODEL, CHAMPION, first, at_ms=4, by="on call", instead_of=second)
    other = ModelStore(opened())
    assert other.aliases(MODEL) == {CHAMPION: first, CHALLENGER: second}
    assert other.load(MODEL).version == first
    assert other.history(MODEL)[0] == AliasChange(CHAMPION, first, 1, "trainer")
    assert [change.at_ms for change in other.history(MODEL)] == [1, 2, 3, 4]


def test_a_change_that_expects_another_version_is_told_so(opened: Opened) -> None:
    store = ModelStore(opened())
    first, second = store.publish(draft()), store.publish(draft(high=3.0))
    store.set_alias(MODEL, CHAMPION, first, at_ms=1, by="t")
    with pytest.raises(AliasMovedError, match=f"points at {first} now"):
        store.set_alias(MODEL, CHAMPION, second, at_ms=2, by="t", instead_of=second)
    assert store.aliases(MODEL) == {CHAMPION: first}


def test_an_alias_is_not_set_to_what_is_not_there(opened: Opened) -> None:
    store = ModelStore(opened())
    version = store.publish(draft())
    store.set_alias(MODEL, CHAMPION, version, at_ms=1, by="t")
    with pytest.raises(BundleNotFoundError, match="no version"):
        store.set_alias(MODEL, CHAMPION, "0" * 16, at_ms=2, by="t")
    assert (store.aliases(MODEL), len(store.history(MODEL))) == ({CHAMPION: version}, 1)


def test_different_aliases_set_at_the_same_time_are_all_kept(opened: Opened) -> None:
    version = ModelStore(opened()).publish(draft())
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(ModelStore(opened()).set_alias, MODEL, f"alias-{i}", version, at_ms=i, by="t")
            for i in range(12)
        ]
        [job.result() for job in jobs]
    store = ModelStore(opened())
    assert len(store.history(MODEL)) == len(store.aliases(MODEL)) == 12


class MeetingStorage:
    """A storage whose writers wait for each other before they create a file: all of them have read the same state."""

    def __init__(self, inner: Storage, meeting: threading.Barrier) -> None:
        self._inner, self._meeting, self._waits = inner, meeting, True
        self.read, self.write, self.names, self.fetch = inner.read, inner.write, inner.names, inner.fetch

    def create(self, name: str, content: bytes) -> None:
        if self._waits:
            self._meeting.wait(30)
            self._waits = False
        self._inner.create(name, content)


def test_of_two_changes_of_one_alias_at_once_one_wins_and_the_other_is_told(opened: Opened) -> None:
    store = ModelStore(opened())
    versions = [store.publish(draft(high=high)) for high in (2.0, 3.0)]
    meeting = threading.Barrier(2)

    def change(version: str) -> bool:
        try:
            ModelStore(MeetingStorage(opened(), meeting)).set_alias(MODEL, CHAMPION, version, at_ms=1, by=version)
        except AliasMovedError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        won = list(pool.map(change, versions))
    assert sorted(won) == [False, True]
    winner = versions[won.index(True)]
    assert store.history(MODEL) == [AliasChange(CHAMPION, winner, 1, winner)]
    assert store.aliases(MODEL) == {CHAMPION: winner}


def test_a_version_without_its_manifest_is_not_there_and_can_be_published(opened: Opened) -> None:
    files = build_files(draft())
    version = version_of(files["manifest.json"])
    storage = opened()
    storage.write(f"{MODEL}/{version}/model.onnx", files["model.onnx"][:100])
    store = ModelStore(opened())
    assert (store.models(), store.versions(MODEL)) == ([], [])
    with pytest.raises(BundleNotFoundError):
        store.load(MODEL, version)
    assert store.publish(draft()) == version
    assert store.load(MODEL, version).version == version


def test_a_version_that_was_changed_does_not_load(opened: Opened) -> None:
    store = ModelStore(opened())
    version = store.publish(draft())
    opened().write(f"{MODEL}/{version}/golden.parquet", b"changed")
    with pytest.raises(BundleCorruptError, match="changed after publishing"):
        store.load(MODEL, version)
    with pytest.raises(BundleCorruptError, match="changed after publishing"):
        store.set_alias(MODEL, CHAMPION, version, at_ms=1, by="t")


FILES = ("manifest.json", "model.onnx", "golden.parquet", "background.parquet", "tables.bin")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"changed"])
def test_publishing_again_mends_a_version_that_was_damaged(opened: Opened, name: str, content: bytes) -> None:
    store = ModelStore(opened())
    version = store.publish(draft())
    before = store.load(MODEL, version)  # where there is a cache, this machine has a good copy from now on
    opened().write(f"{MODEL}/{version}/{name}", content)
    assert store.publish(draft()) == version
    files = build_files(draft())
    assert {name: opened().read(f"{MODEL}/{version}/{name}") for name in FILES} == files
    assert ModelStore(opened()).load(MODEL, version).manifest == before.manifest


class WatchedStorage:
    """A storage that remembers what was written, and does something before each write."""

    def __init__(self, inner: Storage, before: Callable[[], object] = lambda: None) -> None:
        self.written: list[str] = []
        self._inner, self._before = inner, before
        self.read, self.create, self.names, self.fetch = inner.read, inner.create, inner.names, inner.fetch

    def write(self, name: str, content: bytes) -> None:
        self._before()
        self.written.append(name.rsplit("/", 1)[-1])
        self._inner.write(name, content)


def test_what_is_whole_is_not_written_again(opened: Opened) -> None:
    watched = WatchedStorage(opened())
    store = ModelStore(watched)
    version = store.publish(draft())
    assert watched.written[-1] == "manifest.json"
    assert sorted(watched.written) == sorted(FILES)
    watched.written.clear()
    store.publish(draft())
    assert watched.written == []
    opened().write(f"{MODEL}/{version}/model.onnx", b"changed")
    store.publish(draft())
    assert watched.written == ["model.onnx"]


def test_while_a_version_is_mended_readers_are_refused_or_get_it_whole(opened: Opened) -> None:
    store = ModelStore(opened())
    version = store.publish(draft())
    for name in FILES:
        opened().write(f"{MODEL}/{version}/{name}", b"changed")
    seen: list[str] = []

    def reads() -> None:
        try:
            seen.append(ModelStore(opened()).load(MODEL, version).version)
        except BundleCorruptError:
            seen.append("refused")

    ModelStore(WatchedStorage(opened(), before=reads)).publish(draft())
    assert seen == ["refused"] * len(FILES)
    reads()
    assert seen[-1] == version


def test_a_file_of_more_bytes_than_asked_for_is_not_read(opened: Opened) -> None:
    storage = opened()
    storage.write("a/b", b"0123456789")
    storage.write("a/empty", b"")
    assert (storage.read("a/b", 10), storage.read("a/empty", 0)) == (b"0123456789", b"")
    with pytest.raises(BundleCorruptError, match="a/b has 10 bytes, more than 9"):
        storage.read("a/b", 9)


@pytest.mark.parametrize("name", FILES)
def test_a_store_with_a_huge_file_does_not_take_the_memory(tmp_path: Path, name: str) -> None:
    version = ModelStore(tmp_path / "store").publish(draft())
    with (tmp_path / "store" / MODEL / version / name).open("r+b") as file:
        file.truncate(2**40)
    for storage in (storage_of(tmp_path / "store"), object_storage(tmp_path / "store", tmp_path / "cache")):
        with pytest.raises(BundleCorruptError, match="bytes, more than"):
            ModelStore(storage).load(MODEL, version)
        assert not list((tmp_path / "cache").rglob(name))


def test_huge_aliases_are_not_read(opened: Opened) -> None:
    opened().write(f"{MODEL}/aliases/00000001.json", bytes(16 * 2**20 + 1))
    with pytest.raises(BundleCorruptError, match="bytes, more than"):
        ModelStore(opened()).aliases(MODEL)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "model.onnx/../../../x"])
def test_a_manifest_that_names_files_elsewhere_brings_nothing(opened: Opened, tmp_path: Path, name: str) -> None:
    store = ModelStore(opened())
    version = store.publish(draft())
    manifest = msgspec.json.decode(opened().read(f"{MODEL}/{version}/manifest.json"))
    manifest["files"][name] = "0" * 64
    content = msgspec.json.encode(manifest)
    forged = version_of(content)
    opened().write(f"{MODEL}/{forged}/manifest.json", content)
    with pytest.raises(BundleCorruptError, match="names the files"):
        store.load(MODEL, forged)
    assert not list((tmp_path / "cache").rglob("passwd"))


UNSAFE = ("..", "../x", "a//b", "", ".hidden", "x\n", "a\0b", "~/x", "a/../../b", "/etc/passwd")


def test_names_that_could_leave_the_root_are_refused(opened: Opened) -> None:
    storage, store = opened(), ModelStore(opened())
    version = store.publish(draft())
    for name in UNSAFE:
        for attempt in _attempts(storage, store, version, name):
            with pytest.raises(UnsafeNameError):
                attempt()


def _attempts(storage: Storage, store: ModelStore, version: str, name: str) -> tuple[Callable[[], object], ...]:
    return (
        lambda: storage.read(name),
        lambda: storage.write(name, b""),
        lambda: storage.create(name, b""),
        lambda: storage.fetch(name, list, lambda directory: directory),
        lambda: store.load(name),
        lambda: store.load(MODEL, name),
        lambda: store.set_alias(MODEL, name, version, at_ms=1, by="t"),
        lambda: store.set_alias(MODEL, CHAMPION, name, at_ms=1, by="t"),
        lambda: store.publish(draft(name)),
    )


def test_aliases_of_an_older_release_count_and_come_first_in_the_history(opened: Opened) -> None:
    store = ModelStore(opened())
    first, second = store.publish(draft()), store.publish(draft(high=3.0))
    old = [AliasChange(CHAMPION, second, 1, "old"), AliasChange(CHAMPION, first, 2, "old")]
    opened().write(f"{MODEL}/aliases.json", msgspec.json.encode(old))
    assert store.aliases(MODEL) == {CHAMPION: first}
    store.set_alias(MODEL, CHALLENGER, second, at_ms=3, by="new")
    assert store.aliases(MODEL) == {CHAMPION: first, CHALLENGER: second}
    assert store.history(MODEL) == [*old, AliasChange(CHALLENGER, second, 3, "new")]


def test_an_upload_that_breaks_off_is_never_seen(tmp_path: Path) -> None:
    for name in ("model.onnx", "background.parquet", "manifest.json"):
        with pytest.raises(StoreUnavailableError, match="network went away"):
            ModelStore(object_storage(tmp_path, fails_at=name)).publish(draft())
        store = ModelStore(object_storage(tmp_path))
        assert (store.models(), store.versions(MODEL)) == ([], [])
    version = ModelStore(object_storage(tmp_path)).publish(draft())
    assert ModelStore(object_storage(tmp_path)).load(MODEL, version).version == version


class StallingFiles(ObjectFiles):
    """Says where it is in a file, and stays there, at the upload of the manifest."""

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: object) -> None:
        if path.endswith("manifest.json"):
            target = Path(self._strip_protocol(path))
            target.with_name(".begun").write_bytes(value[: len(value) // 2])
            signal.pause()
        super().pipe_file(path, value, mode, **options)


def _publish_and_stall(root: str) -> None:
    ModelStore(RemoteStorage(StallingFiles(), root, cache=None, creates_exclusively=True)).publish(draft())


def test_a_publisher_that_is_killed_in_the_middle_leaves_nothing_that_can_be_seen(tmp_path: Path) -> None:
    publisher = multiprocessing.get_context("spawn").Process(target=_publish_and_stall, args=(str(tmp_path),))
    publisher.start()
    wait_until(lambda: bool(list(tmp_path.rglob(".begun"))), 150.0, "the publisher to reach the manifest")
    assert publisher.pid is not None
    os.kill(publisher.pid, signal.SIGKILL)
    publisher.join(30)
    for storage in (object_storage(tmp_path), storage_of(tmp_path)):
        assert (ModelStore(storage).models(), ModelStore(storage).versions(MODEL)) == ([], [])
    version = ModelStore(object_storage(tmp_path)).publish(draft())
    assert ModelStore(storage_of(tmp_path)).load(MODEL, version).version == version


def test_a_copy_is_brought_once_and_serves_when_the_store_is_away(tmp_path: Path) -> None:
    root, cache = tmp_path / "store", tmp_path / "cache"
    version = ModelStore(object_storage(root)).publish(draft())
    assert ModelStore(object_storage(root, cache)).load(MODEL, version).version == version
    root.rename(tmp_path / "away")
    assert ModelStore(object_storage(root, cache)).load(MODEL, version).version == version
    assert [path.name for path in cache.rglob("*") if path.name.startswith(".")] == []


def test_a_copy_that_was_damaged_is_brought_again(tmp_path: Path) -> None:
    root, cache = tmp_path / "store", tmp_path / "cache"
    version = ModelStore(object_storage(root)).publish(draft())
    store = ModelStore(object_storage(root, cache))
    store.load(MODEL, version)
    (copy,) = cache.rglob("model.onnx")
    copy.write_bytes(b"damaged")
    assert store.load(MODEL, version).version == version
    assert copy.read_bytes() == (root / MODEL / version / "model.onnx").read_bytes()


def test_a_good_copy_is_not_taken_away_by_who_saw_the_damaged_one_before(tmp_path: Path) -> None:
    root, cache = tmp_path / "store", tmp_path / "cache"
    root.mkdir()
    for name in ("a", "b"):
        object_storage(root).write(f"model/version/{name}", b"good")
    first, second = (object_storage(root, cache) for _ in range(2))

    def proven(copy: Path) -> Path:
        if any((copy / name).read_bytes() != b"good" for name in ("a", "b")):
            raise BundleCorruptError("damaged")
        return copy

    kept = first.fetch("model/version", lambda: ["a", "b"], proven)
    kept = next(path for path in cache.rglob("version"))
    (kept / "a").write_bytes(b"damaged")
    looks: list[Path] = []

    def proven_late(copy: Path) -> Path:
        """Sees the damage, and before it can say so another process brings a good copy, and the store goes away."""
        looks.append(copy)
        if len(looks) == 1:
            second.fetch("model/version", lambda: ["a", "b"], proven)
            root.rename(tmp_path / "away")
            raise BundleCorruptError("damaged")
        return proven(copy)

    assert first.fetch("model/version", lambda: ["a", "b"], proven_late) == kept
    assert sorted(path.name for path in kept.iterdir()) == ["a", "b"]


def test_many_who_find_a_damaged_copy_all_end_with_a_good_one(tmp_path: Path) -> None:
    root, cache = tmp_path / "store", tmp_path / "cache"
    version = ModelStore(object_storage(root)).publish(draft())
    ModelStore(object_storage(root, cache)).load(MODEL, version)
    (copy,) = cache.rglob("model.onnx")
    for _ in range(5):
        copy.write_bytes(b"damaged")
        with ThreadPoolExecutor(6) as pool:
            loads = [pool.submit(ModelStore(object_storage(root, cache)).load, MODEL, version) for _ in range(6)]
            assert {load.result().version for load in loads} == {version}
    assert copy.read_bytes() == (root / MODEL / version / "model.onnx").read_bytes()
    assert [path.name for path in cache.rglob(".*")] == []


def test_what_does_not_prove_itself_is_not_kept(tmp_path: Path) -> None:
    root, cache = tmp_path / "store", tmp_path / "cache"
    version = ModelStore(object_storage(root)).publish(draft())
    (root / MODEL / version / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleCorruptError):
        ModelStore(object_storage(root, cache)).load(MODEL, version)
    assert list(cache.rglob("*.onnx")) == []


def test_replicas_that_load_at_once_share_one_copy(tmp_path: Path) -> None:
    root, cache = tmp_path / "store", tmp_path / "cache"
    version = ModelStore(object_storage(root)).publish(draft())
    with ThreadPoolExecutor(6) as pool:
        loads = [pool.submit(ModelStore(object_storage(root, cache)).load, MODEL, version) for _ in range(6)]
        assert {load.result().version for load in loads} == {version}
    assert len(list(cache.rglob("model.onnx"))) == 1
    assert [path.name for path in cache.rglob(".*")] == []


def test_where_two_writers_cannot_be_told_apart_aliases_are_refused_and_versions_load(tmp_path: Path) -> None:
    weak = RemoteStorage(ObjectFiles(), str(tmp_path), cache=None, creates_exclusively=False)
    store = ModelStore(weak)
    version = store.publish(draft())
    assert store.load(MODEL, version).version == version
    with pytest.raises(UnsupportedStoreError, match="aliases cannot be changed"):
        store.set_alias(MODEL, CHAMPION, version, at_ms=1, by="t")


@pytest.mark.parametrize("address", ["nothing://x/models", "simplecache::memory://x", "s3://bucket/models"])
def test_an_address_that_cannot_be_opened_says_what_to_do(address: str) -> None:
    with pytest.raises(UnsupportedStoreError, match=r"install|chained"):
        storage_of(address)


def test_a_service_that_does_not_answer_is_named(tmp_path: Path) -> None:
    class Away(ObjectFiles):
        def ls(self, path: str, detail: bool = False, **options: object) -> list[str]:  # noqa: ARG002
            raise ConnectionError("no route")

    store = ModelStore(RemoteStorage(Away(), str(tmp_path), cache=None, creates_exclusively=True))
    with pytest.raises(StoreUnavailableError, match="no route"):
        store.models()
