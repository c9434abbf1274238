"""The feature repository under test: in a registry of its own, with sources whose files the tests write."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureService, FeatureStore, FileSource
from feast.base_feature_view import BaseFeatureView
from feast.data_source import DataSource
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from google.protobuf.message import Message

from actor_risk.errors import ActorRiskError
from actor_risk.feast_repo import apply_repo
from materialize.definitions import compile_service, compile_view, open_feature_store
from materialize.online import ReadPlan, compile_plan, read_plan


class RepoUnderTest:
    """A repository, compiled. Neither the live registry nor Redis is touched."""

    def __init__(self, repo_path: Path, folder: Path, environ: Mapping[str, str]) -> None:
        """`folder`: an empty one. Raises ActorRiskError for a repository that cannot be applied."""
        registry = folder / "registry.db"
        apply_repo(repo_path, registry, environ)
        self._folder = folder / "sources"
        self._folder.mkdir()
        _redirect(registry, self._folder)
        self.store: FeatureStore = open_feature_store(repo_path, registry)
        self.repo_path = repo_path
        self.views = {view.name: view for view in self.store.registry.list_all_feature_views(self.store.project)}
        self.services = {service.name: service for service in self.store.list_feature_services()}
        self._plans: dict[tuple[str, bool], ReadPlan] = {}

    def features(self, name: str, *, is_service: bool) -> dict[str, str]:
        """The features of a view or service with the Feast value type of each."""
        plan = self.plan(name, is_service=is_service)
        refs = [ref.partition(":")[2] for ref in plan.features]
        return dict(zip(refs, plan.kinds, strict=True))

    def plan(self, name: str, *, is_service: bool) -> ReadPlan:
        """How serving reads the service, or all features of the view. Raises DefinitionError."""
        if (name, is_service) not in self._plans:
            if is_service:
                plan = read_plan(self.store, name)
            else:
                adhoc = FeatureService(name="", features=[_whole(self.views[name])])
                plan = compile_plan(self.store.project, compile_service(adhoc, self.store.registry, self.store.project))
            self._plans[name, is_service] = plan
        return self._plans[name, is_service]

    def asked(self, name: str, *, is_service: bool) -> FeatureService | list[str]:
        """The same features as `get_historical_features` is asked for them."""
        if is_service:
            return self.services[name]
        return list(self.plan(name, is_service=False).features)

    def source(self, view: str) -> DataSource:
        """Where the history of a stored view is. Raises ActorRiskError for one that is not in files."""
        definition = self.views[view]
        assert not isinstance(definition, OnDemandFeatureView)
        source = definition.batch_source
        if not isinstance(source, FileSource):
            raise ActorRiskError(f"view {view!r}: its history is a {type(source).__name__}; tests write Parquet files")
        if Path(source.path).parent != self._folder:
            raise ActorRiskError(
                f"source {source.name!r} is still {source.path}: the registry of the tests was replaced"
            )
        return source

    def write_history(self, source: DataSource, table: pa.Table) -> None:
        """Let the source have these rows and no others; columns are called as views call them."""
        stored_as = {called: stored for stored, called in source.field_mapping.items()}
        named = table.rename_columns([stored_as.get(name, name) for name in table.column_names])
        pq.write_table(named, self._folder / f"{source.name}.parquet")  # never where the repository says


def _whole(view: BaseFeatureView) -> object:
    """A view with all of its features; read back from the registry, a stream view lists its join keys among them."""
    if isinstance(view, OnDemandFeatureView):
        return view
    return view[[field.name for field in compile_view(view).fields]]


def _redirect(registry: Path, folder: Path) -> None:
    """Let every file source of a registry be a file in `folder`."""
    proto = RegistryProto.FromString(registry.read_bytes())
    for source in _sources_in(proto):
        if source.HasField("file_options"):
            source.file_options.uri = str(folder / f"{source.name}.parquet")
            source.file_options.s3_endpoint_override = ""
            source.tags.clear()
    # Feast keeps what it read last by the address of a registry in memory and by this; another may get the address.
    proto.version_id = str(uuid.uuid4())
    registry.write_bytes(proto.SerializeToString())


def _sources_in(message: Message) -> Iterator[DataSourceProto]:
    """Every data source in a message: views have them, and so has every projection of a view in a service."""
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for part in [value] if isinstance(value, Message) else value:
            if isinstance(part, DataSourceProto):
                yield part
            yield from _sources_in(part)
