"""What the children of tests have loaded and compiled before they start: see `children`."""

from __future__ import annotations

import tests.support.backfills
import tests.support.workers  # noqa: F401
from materialize.online import RowFolder
from tests.support.views import stream_view

RowFolder(stream_view())
