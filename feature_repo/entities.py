"""Who and what features are keyed by: the actors, and what links them."""

from feast import Entity, ValueType

advertiser = Entity(
    name="advertiser",
    join_keys=["advertiser_id"],
    value_type=ValueType.STRING,
    description="An account that pays for ads.",
)
creator = Entity(
    name="creator",
    join_keys=["creator_id"],
    value_type=ValueType.STRING,
    description="An account that is paid for showing ads.",
)
ip = Entity(
    name="ip",
    join_keys=["ip"],
    value_type=ValueType.STRING,
    description="An IP address: links the actors that use it.",
)
device = Entity(
    name="device",
    join_keys=["device_id"],
    value_type=ValueType.STRING,
    description="A device fingerprint: links the actors that use it.",
)
