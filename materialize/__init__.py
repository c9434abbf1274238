"""How values get into Redis and back out: kernel, online rows, offline values, stream worker, backfill."""

from materialize.quick_feast import import_feast_quickly

import_feast_quickly()
