"""Child processes that can be killed at any moment, at work within milliseconds.

They come from a process that has everything loaded and compiled already (`preloaded`), and no threads: a fork of a test
process may inherit a lock that a thread of it held.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import dill

CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["tests.support.preloaded"])


def start_child_of_tests(target: Callable[..., None], *arguments: object, shared: object = None) -> BaseProcess:
    """Start `target(*arguments)`, with `shared` as the last argument if there is one; it ends with the test process.

    arguments: anything that dill takes, views with their transformations as well. shared: memory of `CHILDREN`.
    """
    told = dill.dumps((target, arguments))
    process = CHILDREN.Process(target=_call, args=(told, shared), daemon=True)
    process.start()
    return process


def _call(told: bytes, shared: object) -> None:
    target, arguments = dill.loads(told)
    target(*arguments, *([] if shared is None else [shared]))
