"""What can go wrong with a backfill as a whole. What goes wrong in a part is raised as it is, with a note of where.

BackfillError
├── SpanError        a start, an end or a step that no job can have
├── ViewBusyError    another job holds the view
├── QualityError     the data breaks a limit of the view's tags, or a tag is none
├── StoppedError     somebody asked the job to stop
├── ChunkLostError   a chunk's worker died again and again
├── LeaseLostError   another job took the view over
├── SupersededError  the view was defined anew while the job ran
├── RowsLostError    Redis forgot rows while the job ran
└── ClusterError     no Ray cluster to run on
"""

from __future__ import annotations


class BackfillError(Exception):
    """Something about a job; the message says what to do."""


class SpanError(BackfillError):
    """A start, an end or a step that no job can have."""


class ViewBusyError(BackfillError):
    """Another job holds the view, and lives."""


class QualityError(BackfillError):
    """The data breaks a limit that the view's tags set, or a tag is no limit. Nothing was written."""


class StoppedError(BackfillError):
    """Somebody asked the job to stop; what is done is in the manifest."""


class ChunkLostError(BackfillError):
    """The worker of a chunk died, and so did those that tried it after it."""


class LeaseLostError(BackfillError):
    """The job slept for so long that another one took its view over."""


class SupersededError(BackfillError):
    """The view was defined anew while the job ran: its rows are nobody's any more."""


class RowsLostError(BackfillError):
    """Redis was emptied, or went back to an earlier state, while the job ran."""


class ClusterError(BackfillError):
    """There is no Ray cluster at the address."""
