"""What the Feast registry says, compiled once into what the fast paths need: views, services, on-demand functions."""

from materialize.definitions._code import canonical_code
from materialize.definitions._compile import compile_service, compile_view, entity_join_keys
from materialize.definitions._errors import DefinitionError
from materialize.definitions._open import open_feature_store, repo_config
from materialize.definitions._types import (
    EVENT_ID,
    BatchView,
    FeatureField,
    JoinKey,
    OnDemandView,
    ReasonFamily,
    RequestField,
    ServiceDefinition,
    ServiceView,
    StreamView,
    View,
    ViewEvents,
    identities_of,
)

__all__ = [
    "EVENT_ID",
    "BatchView",
    "DefinitionError",
    "FeatureField",
    "JoinKey",
    "OnDemandView",
    "ReasonFamily",
    "RequestField",
    "ServiceDefinition",
    "ServiceView",
    "StreamView",
    "View",
    "ViewEvents",
    "canonical_code",
    "compile_service",
    "compile_view",
    "entity_join_keys",
    "identities_of",
    "open_feature_store",
    "repo_config",
]
