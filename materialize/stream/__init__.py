"""Event sources, the worker that folds them into rows, and dead letters."""
