"""The Feast ComputeEngine plug-in: `feast materialize` by our own backfill.

Name it in `feature_store.yaml`:

    batch_engine:
      type: materialize.backfill.feast_engine.BackfillEngine
      workers: 4          # optional: more than one runs on a Ray of its own
      address: auto       # optional: a Ray cluster
      step: 1d            # optional: how much of history is read at a time
      state: ../.local/backfill    # optional: where manifests are; beside the registry's file without it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from feast import Entity, FeatureView, RepoConfig
from feast.infra.common.materialization_job import MaterializationJob, MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel

from materialize.backfill._executors import Executor, Inline
from materialize.backfill._job import JobSettings, ViewJob
from materialize.backfill._lease import forget_mark
from materialize.backfill._manifest import forget_view
from materialize.backfill._report import JobStatus, ViewReport
from materialize.backfill._spans import Span
from materialize.backfill._steps import step_ms
from materialize.online.feast_store import PackedRedisOnlineStore

_BAR_TICKS = 1_000


class BackfillEngineConfig(FeastConfigBaseModel):
    """Settings of the engine."""

    type: Literal["materialize.backfill.feast_engine.BackfillEngine"] = (
        "materialize.backfill.feast_engine.BackfillEngine"
    )
    workers: int = 1
    """Parts that are done at a time. With one, and no address, everything is done in Feast's own process."""
    address: str | None = None
    """A Ray cluster: `auto`, HOST:PORT or ray://…"""
    step: str = "1d"
    """How much of history is read at a time: a number with s, m, h or d."""
    state: str | None = None
    """The folder of the manifests, relative to the repository; see `state_folder`."""


@dataclass
class FinishedJob(MaterializationJob):
    """A job that is over: the engine raises when one fails, so that Feast never advances a watermark past a failure."""

    task: MaterializationTask
    report: ViewReport

    def status(self) -> MaterializationJobStatus:
        return MaterializationJobStatus.SUCCEEDED

    def error(self) -> BaseException | None:
        return None

    def should_be_retried(self) -> bool:
        return False

    def job_id(self) -> str:
        return f"{self.task.feature_view.name}@{self.task.end_time.isoformat()}"

    def url(self) -> str | None:
        return None


class BackfillEngine(ComputeEngine):
    """Materializes batch views and the batch side of stream views into packed Redis rows."""

    def update(
        self,
        project: str,
        views_to_delete: Sequence[FeatureView],
        views_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
    ) -> None:
        """The rows of views that are gone are deleted by the store: what manifests say of them counts no longer."""
        self._forget(project, views_to_delete)

    def teardown_infra(self, project: str, fvs: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """As `update`."""
        self._forget(project, fvs)

    def _forget(self, project: str, views: Sequence[FeatureView]) -> None:
        for view in views:
            forget_mark(self._store().client(self.repo_config), project, view.name)
            forget_view(state_folder(self.repo_config), project, view.name)

    def _materialize_one(self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any) -> MaterializationJob:
        """Run one task to its end. Raises TypeError for another online store than ours, and what a job raises."""
        store = self._store()
        client = store.client(self.repo_config)
        settings = JobSettings(
            task.project,
            self.repo_config.repo_path,
            self.repo_config.online_store.settings(),
            state_folder(self.repo_config),
            step_ms(self.repo_config.batch_engine.step),
        )
        asked = Span(round(task.start_time.timestamp() * 1000), round(task.end_time.timestamp() * 1000))
        bar: list[Any] = []

        def tell(status: JobStatus) -> None:
            if task.tqdm_builder is not None:
                if not bar:
                    bar.append(task.tqdm_builder(_BAR_TICKS))
                bar[0].update(round(status.share * _BAR_TICKS) - bar[0].n)

        executor = self._executor(Inline(client))
        try:
            job = ViewJob(task.feature_view, asked, settings, client)
            report = job.run(executor, lambda: None, tell, lambda _: None)  # Feast advances its watermark itself
        finally:
            executor.close()
            for shown in bar:
                shown.close()
        return FinishedJob(task, report)

    def _executor(self, inline: Executor) -> Executor:
        config = self.repo_config.batch_engine
        if config.address is None and config.workers == 1:
            return inline
        from materialize.backfill.on_ray import OWN_RAY, RayExecutor  # brings Ray

        return RayExecutor(config.address or OWN_RAY, config.workers)

    def _store(self) -> PackedRedisOnlineStore:
        if not isinstance(self.online_store, PackedRedisOnlineStore):
            raise TypeError(f"this engine writes packed rows: the online store is a {type(self.online_store).__name__}")
        return self.online_store


def state_folder(config: RepoConfig) -> Path:
    """Where the manifests of a repository are: as its engine says, or `backfill` beside its registry's file, or
    `.backfill` in the repository, where the registry is no file."""
    repo = Path(config.repo_path or ".")
    told = getattr(config.batch_engine, "state", None)
    if told is not None:
        return (repo / str(told)).absolute()
    path = str(config.registry.path)
    folder = repo / ".backfill" if "://" in path else repo / Path(path).parent / "backfill"
    return folder.absolute()
