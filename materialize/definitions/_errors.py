"""What can be wrong with a definition in the registry."""


class DefinitionError(ValueError):
    """A definition that our stores and paths cannot honour; the message says what to change in `feature_repo/`."""
