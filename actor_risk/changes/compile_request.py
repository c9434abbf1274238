"""What is asked of the process that compiles a version, and the files that it leaves behind."""

from __future__ import annotations

import msgspec

DEFINITION, OUTCOME, REGISTRY = "definition.json", "outcome.json", "registry.db"
IMPORT_HUNG, EVALUATION_HUNG, WEIGHING_HUNG = "import_hung.txt", "evaluation_hung.txt", "weighing_hung.txt"
CRASHED, EXITED = "crashed.txt", "exited.json"
"""Where a process that ended early stood."""


class CompileRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """repo: its folder. data: where its sources are. folder: for what is written. sample: "" for none.

    is_applied: the version is what the registry's file in `folder` has, and of `repo` only its settings are read.
    protected: files and folders that nothing may write to. seconds: that importing, evaluating, weighing may each take.
    """

    repo: str
    data: str
    folder: str
    is_applied: bool = False
    sample: str = ""
    protected: tuple[str, ...] = ()
    seconds: float = 60.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the work on the sample ended: why there are no values, and no costs; "" where there are. Seconds of each."""

    values: str = ""
    costs: str = ""
    seconds: dict[str, float] = {}
