"""Feast's registry in a file that is whole at every moment: other commands and servers read it while it is written."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime

from feast.infra.registry.file import FileRegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry


class WholeFileRegistryStore(FileRegistryStore):  # type: ignore[misc]  # Feast has no types
    """As Feast's own, which empties the file before it writes it: who reads it then finds no definition at all."""

    def update_registry_proto(self, registry_proto: Registry) -> None:
        """Write all of it beside the file, and then put it in its place."""
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(datetime.now(UTC).replace(tzinfo=None))
        path = self._filepath.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with part.open("wb") as file:
                file.write(registry_proto.SerializeToString())
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
