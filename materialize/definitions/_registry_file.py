"""Feast's registry in a file that is whole at every moment: other commands and servers read it while it is written."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from feast.infra.registry.file import FileRegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry

from materialize.whole_file import write_whole


class WholeFileRegistryStore(FileRegistryStore):  # type: ignore[misc]  # Feast has no types
    """As Feast's own, which empties the file before it writes it: who reads it then finds no definition at all."""

    def update_registry_proto(self, registry_proto: Registry) -> None:
        """Replace the file."""
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(datetime.now(UTC))
        path = self._filepath.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, registry_proto.SerializeToString())
