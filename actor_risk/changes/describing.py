"""What a repository defines, from Feast's objects: imported as `feast apply` does, applied to a registry of its own.

The repository is anybody's code and may fail in any way; whatever goes wrong is a Problem, and the rest is told.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import yaml
from feast import (
    BatchFeatureView,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    KafkaSource,
    OnDemandFeatureView,
    Project,
    RequestSource,
)
from feast.aggregation import Aggregation
from feast.data_source import DataSource, PushSource
from feast.repo_config import RepoConfig
from feast.repo_contents import RepoContents
from feast.repo_operations import get_repo_files, parse_repo, py_path_to_module
from feast.stream_feature_view import StreamFeatureView
from typeguard import typechecked

from actor_risk.changes.compile_request import REGISTRY
from actor_risk.changes.described import (
    EntityDefinition,
    FeatureDefinition,
    Problem,
    RepoDefinition,
    ServiceDefinition,
    SourceDefinition,
    ViewDefinition,
    WindowDefinition,
)
from actor_risk.changes.places import Places, line_of, python_files
from actor_risk.changes.topic_columns import topic_columns
from actor_risk.feast_repo import within_repo
from materialize.definitions import (
    DefinitionError,
    FeatureField,
    OnDemandView,
    StreamView,
    canonical_code,
    compile_service,
    compile_view,
    entity_join_keys,
    repo_config,
)
from materialize.kernel import KernelError, Window, row_bytes_max

FEATURE_STORE = "feature_store.yaml"
DESCRIBE = "describe:"
"""Tags of an on-demand view that describe its features: Feast refuses an on-demand field that carries its own words."""

_CHECKED = (
    Entity,
    Field,
    Aggregation,
    FeatureView,
    BatchFeatureView,
    StreamFeatureView,
    OnDemandFeatureView,
    FeatureService,
    FileSource,
    KafkaSource,
    PushSource,
    RequestSource,
)
_MESSAGE_CHARS = 600

T = TypeVar("T")


@dataclass
class Imported:
    """Feast's objects of a repository, as far as they could be imported."""

    repo: Path
    config: RepoConfig | None = None
    contents: RepoContents | None = None
    problems: list[Problem] = field(default_factory=list)


@contextmanager
def imported_repo(repo: Path, folder: Path, data: Path) -> Iterator[tuple[RepoDefinition, FeatureStore | None]]:
    """The repository as plain data, and its Feast store with the registry in `folder`, None when it cannot be applied.

    data: where ACTOR_RISK_DATA says that the repository's sources are; paths below it are told as they are. Modules of
    the repository are there as long as the context is.
    """
    repo = repo.resolve()
    with within_repo(repo):
        imported = import_repo(repo, folder / REGISTRY)
        yield describe(imported, folder, data)


def check_arguments() -> None:
    """Feast tells again what is wrong with the arguments of a definition, which `quick_feast` leaves out.

    Of the constructors alone, which takes a tenth of a second where checking all of Feast takes four.
    """
    for kind in _CHECKED:
        if not hasattr(kind.__init__, "__wrapped_by_us__"):
            kind.__init__ = typechecked(kind.__init__)
            kind.__init__.__wrapped_by_us__ = True


def prepare(repo: Path, registry: Path) -> None:
    """Imports what the repository's settings name: that takes seconds, which are not the repository's own."""
    check_arguments()
    with suppress(Exception):  # `import_repo` tells of it
        _config(repo, registry)


def import_repo(repo: Path, registry: Path) -> Imported:
    """Imports every module of the repository, from within its folder, and gathers what they define.

    registry: the file that its Feast store will use.
    """
    logging.getLogger("feast").setLevel(logging.ERROR)
    check_arguments()
    imported = Imported(repo)
    try:
        imported.config = _config(repo, registry)
        files = get_repo_files(repo)
    except Exception as error:
        imported.problems.append(_problem("AR002", _words(error), _place_in_yaml(error)))
        return imported
    for file in files:
        try:
            importlib.import_module(py_path_to_module(file))
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            code = "AR001" if isinstance(error, SyntaxError) else "AR002"
            place = line_of(repo, error) or f"{file.relative_to(repo)}:1"
            problem = _problem(code, f"cannot be imported: {_words(error)}", place)
            if all(one.place != place for one in imported.problems):  # files that import it fail for the same reason
                imported.problems.append(problem)
    if not imported.problems:
        imported.contents = parse_repo(repo)
    return imported


def describe(imported: Imported, folder: Path, data: Path) -> tuple[RepoDefinition, FeatureStore | None]:
    """What was imported, as plain data, and the Feast store of it, whose registry is in `folder`."""
    if imported.contents is None or imported.config is None:
        return RepoDefinition(problems=tuple(imported.problems)), None
    places = Places(imported.repo, python_files(imported.repo))
    try:
        store = _applied(imported.contents, imported.config, folder)
    except Exception as error:
        return RepoDefinition(problems=(*imported.problems, _refused(imported, places, error))), None
    told = Telling(imported.repo, data, imported.contents, places, store, imported.problems)
    return told.definition(imported.config.project), store


def applied_store(repo: Path, registry: Path) -> FeatureStore:
    """The Feast store of the repository's settings with that registry's file, and nothing that runs."""
    return FeatureStore(config=_config(repo, registry))


def _applied(contents: RepoContents, config: RepoConfig, folder: Path) -> FeatureStore:
    """The store with everything applied, as `feast apply` does but for the online store, which is left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    if not contents.projects:
        contents.projects.append(Project(name=config.project))
    store = FeatureStore(config=config)
    store.apply(_objects(contents))
    return store


def _objects(contents: RepoContents) -> list[Any]:
    return [
        *contents.projects,
        *contents.data_sources,
        *contents.entities[:-1],  # the last one is Feast's own, which it adds by itself
        *contents.feature_views,
        *contents.on_demand_feature_views,
        *contents.stream_feature_views,
        *contents.feature_services,
    ]


def _refused(imported: Imported, places: Places, error: Exception) -> Problem:
    """Feast refuses the repository: by a word of it, or since a function fails that it tries with some value."""
    text, place = _words(error), line_of(imported.repo, error)
    called = {frame.name for frame in traceback.extract_tb(error.__traceback__)} if place else set()
    names = [one.name for one in _objects(imported.contents)] if imported.contents is not None else []
    subject = next((name for name in names if _is_named(name, text) or name in called), "")
    where = place or (places.of(subject) if subject else "")
    return _problem("AR006", f"Feast refuses it: {text}", where, subject)


class Telling:
    """Feast's objects told one by one. What cannot be compiled is told as it is written, with a Problem."""

    def __init__(
        self,
        repo: Path,
        data: Path,
        contents: RepoContents,
        places: Places,
        store: FeatureStore,
        problems: list[Problem],
    ) -> None:
        self._repo, self._data, self._places, self._store = repo, data, places, store
        self._contents = contents
        self._problems = problems

    def definition(self, project: str) -> RepoDefinition:
        """All of it, each kind by name."""
        contents = self._contents
        views = [
            *(self._stored_view(view) for view in [*contents.feature_views, *contents.stream_feature_views]),
            *(self._on_demand_view(view) for view in contents.on_demand_feature_views),
        ]
        return RepoDefinition(
            project=project,
            entities=_by_name(self._entity(entity) for entity in contents.entities[:-1]),
            sources=_by_name(self._source(source) for source in self._sources()),
            views=_by_name(views),
            services=_by_name(self._service(service) for service in contents.feature_services),
            problems=tuple(self._problems),
        )

    def _named(self, one: Any, *kinds: str, tags: Mapping[str, str] | None = None) -> dict[str, Any]:
        return {
            "name": one.name,
            "description": one.description or "",
            "owner": one.owner or "",
            "tags": dict(one.tags or {} if tags is None else tags),
            "place": self._places.of(one.name, *kinds, type(one).__name__),
        }

    def _entity(self, entity: Entity) -> EntityDefinition:
        return EntityDefinition(**self._named(entity), key=entity.join_key, key_kind=entity.value_type.name)

    def _sources(self) -> list[DataSource]:
        """The sources, without those that are the history of a topic: the topic's source tells of them."""
        histories = {id(source.batch_source) for source in self._contents.data_sources if _is_stream(source)}
        used = {id(view.batch_source) for view in self._contents.feature_views}
        sources = self._contents.data_sources
        asked = [source for view in self._contents.on_demand_feature_views for source in _requests(view)]
        listed = [source for source in sources if id(source) not in histories - used]
        return list({source.name: source for source in [*listed, *asked]}.values())

    def _source(self, source: DataSource) -> SourceDefinition:
        named = self._named(source)
        if isinstance(source, RequestSource):
            columns = {field.name: _kind(field) for field in source.schema}
            return SourceDefinition(**named, kind="request", columns=columns)
        batch = source.batch_source if _is_stream(source) else source
        return SourceDefinition(
            **named,
            kind="stream" if _is_stream(source) else "table",
            columns=topic_columns(source),
            mapped=dict(source.field_mapping or getattr(batch, "field_mapping", None) or {}),
            timestamp_field=source.timestamp_field or getattr(batch, "timestamp_field", "") or "",
            created_field=source.created_timestamp_column or getattr(batch, "created_timestamp_column", "") or "",
            topic=_topic(source),
            path=self._path(batch),
        )

    def _path(self, source: DataSource | None) -> str:
        """Where the history or table is: below the data as it is, else from the repository, wherever that is."""
        if not isinstance(source, FileSource):
            return "" if source is None else str(getattr(source, "table", None) or getattr(source, "query", "") or "")
        text = str(source.path)
        around = self._repo.parent
        if not Path(text).is_absolute() or Path(text).is_relative_to(self._data):
            return text
        return os.path.relpath(text, self._repo) if Path(text).is_relative_to(around) else text

    def _stored_view(self, view: FeatureView) -> ViewDefinition:
        registered = self._store.registry.get_any_feature_view(view.name, self._store.project)  # as it will be read
        compiled = self._compiled(view.name, lambda: compile_view(registered))
        stream = isinstance(view, StreamFeatureView)
        keys = {key.name: key.kind for key in entity_join_keys(registered)}
        code = (view.udf_string or "") if stream else ""
        features = self._windowed(view, compiled) if stream and view.aggregations else self._plain(view, keys)
        source = view.stream_source if stream else view.batch_source
        return ViewDefinition(
            **self._named(view, *(("def",) if code else ())),
            kind="stream" if stream and view.aggregations else "batch",
            entities=tuple(name for name in view.entities if name != "__dummy"),
            keys=keys,
            source="" if source is None else source.name,
            timestamp_field=(view.timestamp_field if stream else "") or "",
            ttl_ms=_milliseconds(view.ttl),
            features=features,
            code=canonical_code(code) if code else "",
            code_text=code,
            fingerprint=f"{compiled.fingerprint:016x}" if compiled is not None else "",
            row_bytes_max=row_bytes_max(compiled.spec) if isinstance(compiled, StreamView) else 0,
            columns=tuple(dict.fromkeys(one.column for one in view.aggregations)) if stream else (),
        )

    def _windowed(self, view: StreamFeatureView, compiled: Any) -> tuple[FeatureDefinition, ...]:
        """The features of the aggregations, in their order; further ones of the schema behind them."""
        fields = {field.name: field for field in view.features}
        windows = {one.resolved_name(one.time_window): _window(one) for one in view.aggregations}
        keys = {key.name for key in compiled.join_keys} if compiled is not None else set()
        names = dict.fromkeys([*windows, *(name for name in fields if name not in keys)])
        return tuple(_feature(fields.get(name), name, windows.get(name)) for name in names)

    def _plain(self, view: FeatureView, keys: Mapping[str, str]) -> tuple[FeatureDefinition, ...]:
        return tuple(_feature(field, field.name) for field in view.features if field.name not in keys)

    def _on_demand_view(self, view: OnDemandFeatureView) -> ViewDefinition:
        """Compiled as the only view of a service, since that is how it is used."""
        alone = FeatureService(name=view.name, features=[view])
        found = self._compiled(view.name, lambda: self._compile_service(alone))
        compiled: OnDemandView | None = found.on_demand[0] if found is not None else None
        fields = compiled.fields if compiled is not None else [FeatureField(f.name, _kind(f)) for f in view.features]
        tags = {name: tuple(sorted((field.tags or {}).items())) for name, field in _fields(view).items()}
        transformation = view.feature_transformation
        text = getattr(transformation, "udf_string", "") or ""
        inputs = [f"{name}:{feature}" for name, feature in compiled.inputs] if compiled is not None else _inputs(view)
        own_tags = {tag: said for tag, said in (view.tags or {}).items() if not tag.startswith(DESCRIBE)}
        return ViewDefinition(
            **self._named(view, "def", tags=own_tags),
            kind="on_demand",
            features=tuple(
                FeatureDefinition(
                    name=field.name, kind=field.kind, description=field.description, tags=dict(tags.get(field.name, ()))
                )
                for field in fields
            ),
            code=canonical_code(text),
            code_text=text,
            inputs=tuple(inputs),
            requests=tuple(field.name for source in _requests(view) for field in source.schema),
        )

    def _service(self, service: FeatureService) -> ServiceDefinition:
        compiled = self._compiled(service.name, lambda: self._compile_service(service))
        if compiled is None:
            features = [
                f"{projection.name_alias or projection.name}:{field.name}"
                for projection in service.feature_view_projections
                for field in projection.features
            ]
            return ServiceDefinition(**self._named(service), features=tuple(features), fingerprint="")
        return ServiceDefinition(
            **self._named(service),
            features=tuple(f"{view}:{field.name}" for view, field in compiled.features),
            fingerprint=compiled.fingerprint,
            reads=tuple(view.view.name for view in compiled.views),
            called={view.called: view.view.name for view in compiled.views if view.called != view.view.name},
        )

    def _compile_service(self, service: FeatureService) -> Any:
        registry, project = self._store.registry, self._store.project
        if any(one.name == service.name for one in self._contents.feature_services):
            service = registry.get_feature_service(service.name, project)
        return compile_service(service, registry, project)

    def _compiled(self, subject: str, compile_it: Callable[[], T]) -> T | None:
        """What is compiled, or None with a Problem. One that a view had already is not told again of its services."""
        try:
            return compile_it()
        except Exception as error:
            message = str(error) if isinstance(error, DefinitionError) else _words(error)
            if all(problem.message != message for problem in self._problems):
                self._problems.append(_problem("AR006", message, self._places.of(subject), subject))
            return None


def _config(repo: Path, registry: Path) -> RepoConfig:
    """The repository's configuration without what runs: another registry, no online store, no engine."""
    config = repo_config(repo, registry)
    config.online_config = None
    config.batch_engine_config = "local"
    return config


def _window(aggregation: Aggregation) -> WindowDefinition | None:
    if aggregation.time_window is None:
        return None
    length_ms, slide_ms = _milliseconds(aggregation.time_window), _milliseconds(aggregation.slide_interval)
    try:
        hop_ms = Window.of(length_ms, slide_ms).hop_ms
    except KernelError:
        hop_ms = 0
    return WindowDefinition(
        column=aggregation.column,
        function=aggregation.function,
        length_ms=length_ms,
        hop_ms=hop_ms,
        declared_hop_ms=slide_ms if slide_ms not in (0, length_ms) else None,  # Feast fills in the window's length
    )


def _feature(field: Field | None, name: str, window: WindowDefinition | None = None) -> FeatureDefinition:
    if field is None:
        return FeatureDefinition(name=name, kind="UNKNOWN", window=window)
    description, tags = field.description or "", dict(field.tags or {})
    return FeatureDefinition(name=name, kind=_kind(field), description=description, tags=tags, window=window)


def _fields(view: OnDemandFeatureView) -> dict[str, Field]:
    return {field.name: field for field in view.features}


def _inputs(view: OnDemandFeatureView) -> list[str]:
    return [
        f"{projection.name_alias or projection.name}:{field.name}"
        for projection in view.source_feature_view_projections.values()
        for field in projection.features
    ]


def _requests(view: OnDemandFeatureView) -> list[RequestSource]:
    return list(view.source_request_sources.values())


def _is_stream(source: DataSource) -> bool:
    return not isinstance(source, (FileSource, RequestSource)) and getattr(source, "batch_source", None) is not None


def _topic(source: DataSource) -> str:
    options = getattr(source, "kafka_options", None)
    return str(options.topic) if options is not None else (source.name if _is_stream(source) else "")


def _kind(field: Field) -> str:
    return str(field.dtype.to_value_type().name)


def _milliseconds(span: timedelta | None) -> int:
    return 0 if span is None else span // timedelta(milliseconds=1)


def _by_name(found: Iterator[T] | list[T]) -> tuple[T, ...]:
    return tuple(sorted(found, key=lambda one: str(getattr(one, "name", ""))))


def _problem(code: str, message: str, place: str, subject: str = "") -> Problem:
    short = message if len(message) <= _MESSAGE_CHARS else message[:_MESSAGE_CHARS] + "…"
    return Problem(code=code, message=short, place=place, subject=subject)


def _words(error: BaseException) -> str:
    """The error as people read it."""
    if isinstance(error, DefinitionError):
        return str(error)
    if isinstance(error, SystemExit):
        return f"it ends the process (sys.exit({error.code!r}))"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _place_in_yaml(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None) if isinstance(error, yaml.YAMLError) else None
    return f"{FEATURE_STORE}:{mark.line + 1 if mark is not None else 1}"


def _is_named(name: str, text: str) -> bool:
    return bool(name) and re.search(rf"\b{re.escape(name)}\b", text) is not None
