"""What can go wrong with the online store.

OnlineStoreError
├── RowRefusedError              bytes that are no row of this view: counted, and read as NOT_FOUND
├── WriteConflictError           a row kept changing under its writer
├── OnlineStoreUnavailableError  Redis did not answer, or cannot now: the same call may succeed later
│   └── PartlyUnreadError            some shards of a cluster did; has the rows of the others
├── OnlineStoreRefusedError      Redis answered no, and will until somebody changes something
├── ConnectionSettingsError      the settings name no Redis that a client could be made for
├── UnknownServiceError          the registry has no such feature service
└── UnknownFeatureError          the registry has no such feature
"""

from __future__ import annotations

from collections.abc import Sequence


class OnlineStoreError(Exception):
    """Something about the online store."""


class RowRefusedError(OnlineStoreError):
    """Stored bytes that cannot be read as a row of the view. `reason` is a stable word for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class WriteConflictError(OnlineStoreError):
    """A row that other writers kept changing, for as many tries as are allowed."""


class OnlineStoreUnavailableError(OnlineStoreError):
    """Redis is away, slow beyond its time-out, loading, read-only or out of memory."""


class PartlyUnreadError(OnlineStoreUnavailableError):
    """Some shards of a cluster do not answer. rows: of all that was asked for, None where there is none or where it is
    not known; unread: the positions of the latter."""

    def __init__(self, rows: Sequence[bytes | None], unread: Sequence[int], told: str) -> None:
        super().__init__(f"a part of the online store does not answer: {told}")
        self.rows = rows
        self.unread = unread


class OnlineStoreRefusedError(OnlineStoreError):
    """Redis does not know or let the user, or holds something else under a row's key: trying again will not help."""


class ConnectionSettingsError(OnlineStoreError):
    """Settings of the connection that contradict each other or that no client takes."""


class UnknownServiceError(OnlineStoreError):
    """A feature service that the registry does not have."""


class UnknownFeatureError(OnlineStoreError):
    """A feature that the registry does not have, or that is not written as "view:feature"."""
