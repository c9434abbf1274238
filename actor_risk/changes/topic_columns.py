"""The columns of a topic, as its source declares them."""

from __future__ import annotations

import json

from feast.data_source import DataSource


def topic_columns(source: DataSource | None) -> dict[str, str]:
    """Name → type, of the message format's JSON (`name type, name type`) or Avro record; nothing without either."""
    options = getattr(source, "kafka_options", None) or getattr(source, "kinesis_options", None)
    schema = getattr(getattr(options, "message_format", None), "schema_json", None) or ""
    if schema.lstrip().startswith("{"):
        try:
            declared = json.loads(schema)
        except ValueError:
            return {}
        fields = declared.get("fields", []) if isinstance(declared, dict) else []
        return {str(one["name"]): json.dumps(one.get("type")).strip('"') for one in fields if "name" in one}
    pairs = (part.split(None, 1) for part in schema.split(","))
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
