"""Feast's import in about half its time: without the checks of argument types that it compiles into its classes.

Feast marks its classes with typeguard, which parses and compiles each of their methods anew in every process: 4 of the
8 to 10 seconds that importing Feast takes. The checks tell whoever writes a definition what is wrong with it, so
`actor-risk apply` and Feast's own commands keep them. A replica, a worker or a part of a backfill reads definitions
that have passed them.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import Any

_FEAST = "feast"


def import_feast_quickly() -> None:
    """From now on `import feast` leaves its checks out; nothing if it is imported already, or asked for before."""
    if _FEAST not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def import_feast_with_checks() -> None:
    """From now on `import feast` is again what it would be; nothing if it is imported already."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]


class _Finder(MetaPathFinder):
    """Finds Feast, once."""

    def find_spec(self, fullname: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """As a finder does."""
        if fullname != _FEAST:
            return None
        import_feast_with_checks()
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Runs the package while typeguard marks nothing."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """As a loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As a loader does."""
        import typeguard

        marks = typeguard.typechecked
        typeguard.typechecked = _unmarked
        try:
            self._loader.exec_module(module)
        finally:
            typeguard.typechecked = marks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # what else is asked of a loader: its resources, its source


def _unmarked(target: Any = None, **_: Any) -> Any:
    """What `typechecked` is, with and without arguments."""
    return (lambda marked: marked) if target is None else target
