"""From the exception that ended a worker to how it ended, and to the exit code that says so."""

from __future__ import annotations

from actor_risk.errors import ActorRiskError
from actor_risk.streaming.workers import End

EXIT_CODES: dict[End, int] = {"stopped": 0, "refused": 2, "superseded": 3, "unavailable": 4}
"""Any other one means `died`."""
DIED = 1


def how_it_ended(error: Exception) -> End:
    """What an exception of `run_worker` means."""
    from materialize.definitions import DefinitionError
    from materialize.events import EventFormatError
    from materialize.online import OnlineStoreError, OnlineStoreUnavailableError
    from materialize.stream import DefinitionsSupersededError, LogUnavailableError, StreamError

    if isinstance(error, DefinitionsSupersededError):
        return "superseded"
    if isinstance(error, (LogUnavailableError, OnlineStoreUnavailableError)):
        return "unavailable"
    if isinstance(error, (ActorRiskError, DefinitionError, EventFormatError, OnlineStoreError, StreamError)):
        return "refused"
    return "died"


def end_of(exit_code: int) -> End:
    """How a process with this exit code ended."""
    return next((how for how, code in EXIT_CODES.items() if code == exit_code), "died")
