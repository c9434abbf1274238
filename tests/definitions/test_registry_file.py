"""The registry's file is whole whenever it is read."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from feast.infra.registry.registry import get_registry_store_class_from_type
from feast.protos.feast.core.Entity_pb2 import Entity
from feast.protos.feast.core.Registry_pb2 import Registry

from materialize.definitions import repo_config

ENTITIES = 500


def test_who_reads_a_registry_while_it_is_written_finds_all_of_it(tmp_path: Path) -> None:
    config = repo_config(Path("feature_repo"), tmp_path / "deep" / "registry.db").registry
    store = get_registry_store_class_from_type(str(config.registry_store_type))(config, tmp_path)
    with pytest.raises(FileNotFoundError, match="apply"):
        store.get_registry_proto()
    content = Registry(entities=[Entity() for _ in range(ENTITIES)])
    store.update_registry_proto(content)
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            store.update_registry_proto(content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        versions = set()
        while len(versions) < 100:
            found = store.get_registry_proto()
            assert len(found.entities) == ENTITIES
            versions.add(found.version_id)
    finally:
        ended.set()
        writer.join()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["registry.db"]
