"""The Feast ComputeEngine plug-in: `feast materialize` by our own backfill.

Name it in `feature_store.yaml`:

    batch_engine:
      type: materialize.backfill.feast_engine.BackfillEngine
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from feast import Entity, FeatureView
from feast.infra.common.materialization_job import MaterializationJob, MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel

from materialize.backfill._batch_side import BackfillResult, backfill_view
from materialize.definitions import compile_view
from materialize.online import RowWriter
from materialize.online.feast_store import PackedRedisOnlineStore


class BackfillEngineConfig(FeastConfigBaseModel):
    """Settings of the engine: there are none."""

    type: Literal["materialize.backfill.feast_engine.BackfillEngine"] = (
        "materialize.backfill.feast_engine.BackfillEngine"
    )


@dataclass
class FinishedJob(MaterializationJob):
    """A job that is over: the engine raises when one fails, so that Feast never advances a watermark past a failure."""

    task: MaterializationTask
    result: BackfillResult

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
        """Nothing stands ready between jobs."""

    def teardown_infra(self, project: str, fvs: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Nothing stands ready between jobs."""

    def _materialize_one(self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any) -> MaterializationJob:
        """Run one task to its end. Raises TypeError for another online store than ours, and what a backfill raises."""
        store = self.online_store
        if not isinstance(store, PackedRedisOnlineStore):
            raise TypeError(f"this engine writes packed rows: the online store is a {type(store).__name__}")
        bar: list[Any] = []

        def progress(done: int, total: int) -> None:
            if task.tqdm_builder is not None:
                if not bar:
                    bar.append(task.tqdm_builder(total))
                bar[0].update(done - bar[0].n)

        try:
            result = backfill_view(
                compile_view(task.feature_view),
                task.feature_view.batch_source,
                task.project,
                self.repo_config.repo_path,
                RowWriter(store.client(self.repo_config)),
                round(task.start_time.timestamp() * 1000),
                round(task.end_time.timestamp() * 1000),
                progress,
            )
        finally:
            for shown in bar:
                shown.close()
        return FinishedJob(task, result)
