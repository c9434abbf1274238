"""What a person at the command line is told; every message says what to do."""


class ActorRiskError(Exception):
    """Something that a command cannot do as things stand."""
