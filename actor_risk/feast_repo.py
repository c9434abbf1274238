"""The feature repository from the command line: apply it, and say up to when its views are materialized."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from feast import FeatureStore, FeatureView
from feast.repo_operations import apply_total
from feast.stream_feature_view import StreamFeatureView

from actor_risk.changes.places import line_of
from actor_risk.errors import ActorRiskError
from materialize.definitions import StreamView, View, compile_view, repo_config


@dataclass(frozen=True)
class Applied:
    """What is in the registry now."""

    views: int
    services: tuple[str, ...]


def apply_repo(repo_path: Path, registry_path: Path, environ: Mapping[str, str] | None = None) -> Applied:
    """`feast apply` of the repository into the registry file, quietly, with `environ` added to the environment.

    Raises ActorRiskError, with Feast's own words and the line of the repository, when it cannot be applied.
    """
    registry_path.parent.mkdir(parents=True, exist_ok=True)
    config = repo_config(repo_path, registry_path)
    said = io.StringIO()
    try:
        with within_repo(repo_path, environ or {}), contextlib.redirect_stdout(said):
            apply_total(config, repo_path, True)
    except (Exception, SystemExit) as error:  # the repository is anybody's code: it may fail in any way
        place = line_of(repo_path, error)
        if isinstance(error, SystemExit) and not place:
            raise  # somebody ends this process
        where = f"{repo_path}/{place}" if place else repo_path
        why = f"{type(error).__name__}: {error}" if place else error
        raise ActorRiskError(f"feast apply failed in {where}: {why}\n{said.getvalue()}".rstrip()) from error
    store = FeatureStore(config=config)
    return Applied(
        len(store.list_all_feature_views()), tuple(sorted(service.name for service in store.list_feature_services()))
    )


def stream_views(store: FeatureStore) -> list[StreamView]:
    """The compiled stream views of the registry."""
    compiled: list[View] = [compile_view(view) for view in store.list_stream_feature_views()]
    return [view for view in compiled if isinstance(view, StreamView)]


def definitions_as_of_ms(store: FeatureStore) -> int:
    """When a stream view of the registry was last changed, milliseconds UTC; 0 when nothing says."""
    changed = [view.last_updated_timestamp for view in store.list_stream_feature_views()]
    return max((round(when.timestamp() * 1_000) for when in changed if when is not None), default=0)


def view_names(store: FeatureStore) -> list[str]:
    """The views that a backfill can fill, sorted."""
    return sorted(view.name for view in [*store.list_batch_feature_views(), *_streams(store)])


def view_to_fill(store: FeatureStore, name: str) -> FeatureView:
    """A view that a backfill can fill. Raises ActorRiskError for a name that is none's."""
    found = {view.name: view for view in [*store.list_batch_feature_views(), *_streams(store)]}
    if name not in found:
        raise ActorRiskError(f"no view {name!r} to backfill in the registry: it has {', '.join(sorted(found))}")
    return found[name]


def advance_watermark(
    store: FeatureStore, name: str, start_ms: int, end_ms: int, lock_file: Path, check: Callable[[FeatureView], None]
) -> None:
    """Enter the span into the view's materialization intervals, as `feast materialize` does, unless it is there.

    `lock_file`: commands that share the registry's file write it one after the other; Feast alone would lose entries.
    `check` is given the view as the registry has it then, and may raise.
    """
    interval = (datetime.fromtimestamp(start_ms / 1000, UTC), datetime.fromtimestamp(end_ms / 1000, UTC))
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store.refresh_registry()
        view = view_to_fill(store, name)
        check(view)
        if interval not in view.materialization_intervals:
            store.registry.apply_materialization(view, store.project, *interval)


def _streams(store: FeatureStore) -> list[StreamFeatureView]:
    return list(store.list_stream_feature_views())


@contextlib.contextmanager
def within_repo(repo_path: Path, environ: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
    """As Feast imports a repository: from within its folder, its modules at the top level; undone afterwards.

    environ: variables that it sees meanwhile.
    """
    directory, path, modules, writes_no_caches = Path.cwd(), list(sys.path), set(sys.modules), sys.dont_write_bytecode
    before = {name: os.environ.get(name) for name in environ}
    os.chdir(repo_path)
    sys.path.insert(0, str(repo_path))
    os.environ.update(environ)
    sys.dont_write_bytecode = True  # a file that is edited twice within a second would be read from its old cache
    importlib.invalidate_caches()
    try:
        yield
    finally:
        os.chdir(directory)
        sys.path[:] = path
        sys.dont_write_bytecode = writes_no_caches
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).is_relative_to(repo_path):
                del sys.modules[name]
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
