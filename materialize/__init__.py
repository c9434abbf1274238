"""How values get into Redis and back out: kernel, online rows, offline values, stream worker, backfill."""
