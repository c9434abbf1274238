"""The scoring endpoint over HTTP: rate, latency, overload, memory; beside two servers made of the usual parts.

Ours is `actor-risk serve`: Ray Serve with HAProxy in throughput mode, decision log on. The peers are one application
of Ray Serve, FastAPI, Feast's stock Redis store, ONNX Runtime and shap: once with Ray Serve's defaults (`docs`), once
with HAProxy, throughput mode and as many replicas as ours (`expert`). Servers run one at a time, in turn, and every
request is about other actors. `--short` is for tries: one round, and no half a million requests.
"""

from __future__ import annotations

import signal
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from actor_risk.home import Home
from actor_risk.local import Valkey
from bench.bars import Bar, Findings
from bench.load import Answers, closed_loop, open_loop
from bench.report import report
from bench.score_checks import PLACES, check_batch, check_ours, check_peer
from bench.score_servers import Peer, our_server, replica_pids, rss_mib
from bench.score_world import ACTORS, BATCH, World
from bench.stream_worker import cpu_seconds
from bench.timing import rounded

SCORE_PATH, BATCH_PATH, PEER_PATH = "/v1/score", "/v1/score:batch", "/score"
REPLICAS = 2
CONNECTIONS, PEAK_CONNECTIONS, BATCH_CONNECTIONS = 16, 64, 4
OPEN_RATE, OPEN_CONNECTIONS = 1_000, 128
MEMORY_STEP_S = 30.0
TOO_MANY_REQUESTS = int(HTTPStatus.TOO_MANY_REQUESTS)
OVERLOAD, OVERLOAD_CONNECTIONS, OVERLOAD_TICK_MS = 3, 1_024, 2.0


@dataclass(frozen=True)
class Scale:
    """How much a run takes."""

    rounds: int
    seconds: float
    open_s: float
    overload_s: float
    memory_requests: int


FULL = Scale(rounds=3, seconds=8.0, open_s=60.0, overload_s=15.0, memory_requests=500_000)
SHORT = Scale(rounds=1, seconds=4.0, open_s=15.0, overload_s=6.0, memory_requests=0)


@dataclass(frozen=True)
class Asked:
    """The requests, by what is measured with them."""

    explain: Sequence[bytes]
    score: Sequence[bytes]
    batch: Sequence[bytes]
    peer: Sequence[bytes]


@dataclass(frozen=True)
class Loaded:
    """What came back, and the seconds of CPU that the replicas took for it."""

    answers: Answers
    replica_s: float


class Rounds:
    """Figures by key, one for each round; CPU of load and replicas; requests that were not answered with 200."""

    def __init__(self) -> None:
        self.figures: dict[str, list[float]] = {}
        self.errors: Counter[str] = Counter()
        self.resent: Counter[str] = Counter()
        self.cpu_us: dict[str, dict[str, float]] = {}

    def add(self, server: str, name: str, loaded: Loaded, figures: Mapping[str, float]) -> None:
        """`name` says what was measured, `server` who answered."""
        answers = loaded.answers
        self.errors[server] += answers.errors
        self.resent[server] += answers.resent
        self.note_cpu(name, loaded)
        for key, figure in figures.items():
            self.figures.setdefault(key, []).append(figure)

    def note_cpu(self, name: str, loaded: Loaded) -> None:
        """Microseconds for an answer, as the last round had them: of the load, and of all replicas together."""
        per_answer = loaded.replica_s * 1e6 / max(1, len(loaded.answers.statuses))
        self.cpu_us[name] = {"load": rounded(loaded.answers.cpu_us), "replicas": rounded(per_answer)}

    def median(self, key: str) -> float:
        return statistics.median(self.figures[key])

    def findings(self) -> Findings:
        return Findings(
            {key: rounded(self.median(key)) for key in self.figures},
            {key: [rounded(figure) for figure in figures] for key, figures in self.figures.items()},
            {
                "cpu_us": self.cpu_us,
                **{f"{server}_errors": count for server, count in self.errors.items()},
                **{f"{server}_resent": count for server, count in self.resent.items()},
            },
        )


def run(as_json: bool, is_short: bool) -> None:
    """Compare the values, then take turns, then offer too much and watch the memory."""
    scale = SHORT if is_short else FULL
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that an HAProxy does not outlive whoever is stopped
    with (
        tempfile.TemporaryDirectory() as folder,
        Valkey(Path(folder) / "valkey") as valkey,
        closing(World(_home(Path(folder) / "home", valkey.url))) as world,
    ):
        found = _Benchmark(Path(folder), world, valkey, scale).measure()
    report("score-short" if is_short else "score", found.as_report(_bars(found.figures)), as_json)


class _Benchmark:
    def __init__(self, folder: Path, world: World, valkey: Valkey, scale: Scale) -> None:
        self._world, self._scale = world, scale
        self._home = _home(folder / "home", valkey.url)
        self._peer = Peer(folder / "peers", world, valkey.address)
        self._asked = Asked(
            explain=world.requests(SCORE_PATH),
            score=world.requests(SCORE_PATH, explain="none"),
            batch=world.batch_requests(BATCH_PATH),
            peer=world.plain_requests(PEER_PATH),
        )
        self._rounds = Rounds()
        self._values = world.values(range(ACTORS))
        self._has_batch = False

    def measure(self) -> Findings:
        """Everything, in turn; another server first in each round."""
        servers: dict[str, Callable[[], AbstractContextManager[int]]] = {
            "ours": lambda: our_server(self._home, REPLICAS),
            "docs": self._peer.docs_server,
            "expert": lambda: self._peer.expert_server(REPLICAS),
        }
        names = list(servers)
        self._peer.write(range(ACTORS), self._values)
        long = Findings({})
        for turn in range(self._scale.rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                if name == "ours":
                    self._world.fill_tiles()
                with servers[name]() as port:
                    if turn == 0:
                        self._check(name, port)
                    self._round(name, port)
                    if name == "ours" and turn == self._scale.rounds - 1:
                        long = self._memory(port)
                        self._world.fill_tiles()  # minutes have passed, and windows have thinned out
                        long |= self._open(port) | self._overload(port)
        notes: dict[str, object] = {"replicas": REPLICAS, "actors_of_each_kind": ACTORS, "compared": len(PLACES)}
        if not self._has_batch:
            notes["batch"] = f"{BATCH_PATH} answers 404: not measured"
        return self._rounds.findings() | long | Findings({"errors": self._rounds.errors["ours"]}, {}, notes)

    def _check(self, name: str, port: int) -> None:
        if name != "ours":
            check_peer(port, self._world, self._values[: len(PLACES)])
            return
        self._has_batch = check_batch(port, self._world, BATCH_PATH)
        self._values[: len(PLACES)] = check_ours(port, self._world)
        self._peer.write(PLACES, self._values)

    def _round(self, name: str, port: int) -> None:
        """One server's turn: warm up, one connection, sixteen; ours also without reasons, and in batches."""
        key, requests = ("explain", self._asked.explain) if name == "ours" else (name, self._asked.peer)
        self._closed(port, requests, CONNECTIONS)
        one = self._closed(port, requests, 1)
        self._rounds.add(name, f"{key}_c1", one, {f"{key}_c1_p50_ms": one.answers.quantile_ms(0.5)})
        many = self._closed(port, requests, CONNECTIONS)
        figures = {f"{key}_rps": many.answers.per_second(), f"{key}_p99_ms": many.answers.quantile_ms(0.99)}
        self._rounds.add(name, key, many, figures)
        if name != "ours":
            return
        bare = self._closed(port, self._asked.score, CONNECTIONS)
        self._rounds.add(name, "score", bare, {"score_rps": bare.answers.per_second()})
        if self._has_batch:
            batch = self._closed(port, self._asked.batch, BATCH_CONNECTIONS)
            self._rounds.add(name, "batch", batch, {"batch_actors_per_s": batch.answers.per_second() * BATCH})

    def _memory(self, port: int) -> Findings:
        """The largest replica when it is warm, and how much the memory of any has grown after so many requests."""
        before = {pid: rss_mib(pid) for pid in replica_pids()}
        figures = {"rss_mib": rounded(max(before.values()))}
        done = 0
        while done < self._scale.memory_requests:
            loaded = self._closed(port, self._asked.explain, CONNECTIONS, MEMORY_STEP_S)
            self._rounds.add("ours", "memory", loaded, {})
            done += len(loaded.answers.statuses)
        if done:
            after = {pid: rss_mib(pid) for pid in before}
            figures["rss_mib"] = rounded(max(after.values()))
            figures["rss_growth"] = rounded(max(after[pid] / before[pid] - 1 for pid in before))
        notes: dict[str, object] = {"rss_mib_warm": [rounded(mib) for mib in before.values()], "rss_requests": done}
        return Findings(figures, {}, notes)

    def _open(self, port: int) -> Findings:
        loaded = _measured(
            lambda: open_loop(
                port, self._asked.explain, rate=OPEN_RATE, seconds=self._scale.open_s, connections=OPEN_CONNECTIONS
            )
        )
        self._rounds.add("ours", "open", loaded, {})
        answers = loaded.answers
        figures = {
            "open_p50_ms": rounded(answers.quantile_ms(0.5)),
            "open_p99_ms": rounded(answers.quantile_ms(0.99)),
            "open_p999_ms": rounded(answers.quantile_ms(0.999)),
        }
        return Findings(figures, {}, {"open_late_p99_ms": rounded(answers.late_p99_ms), "open": answers.by_status})

    def _overload(self, port: int) -> Findings:
        """Three times the most that the same server has just done is offered; only 200 and 429 are right answers, as
        they are of the many connections that find out how much that is."""
        peak = self._closed(port, self._asked.explain, PEAK_CONNECTIONS, interrupts=False)
        self._rounds.note_cpu("peak", peak)
        best = max(peak.answers.per_second(), self._rounds.figures["explain_rps"][-1])
        loaded = _measured(
            lambda: open_loop(
                port,
                self._asked.explain,
                rate=OVERLOAD * best,
                seconds=self._scale.overload_s,
                connections=OVERLOAD_CONNECTIONS,
                tick_ms=OVERLOAD_TICK_MS,
                interrupts=False,
            )
        )
        self._rounds.note_cpu("overload", loaded)
        answers = loaded.answers
        refused = answers.by_status.get(TOO_MANY_REQUESTS, 0)
        figures = {
            "peak_rps": rounded(peak.answers.per_second()),
            "overload_goodput": rounded(answers.per_second() / best),
            "overload_p99_ms": rounded(answers.quantile_ms(0.99)),
            "overload_errors": _wrong(answers) + _wrong(peak.answers),
        }
        notes: dict[str, object] = {
            "overload": {**answers.by_status, "lost": answers.lost, "resent": answers.resent},
            "peak": {**peak.answers.by_status, "lost": peak.answers.lost},
            "overload_refused_p50_ms": rounded(answers.quantile_ms(0.5, TOO_MANY_REQUESTS)) if refused else None,
            "overload_late_p99_ms": rounded(answers.late_p99_ms),
        }
        return Findings(figures, {}, notes)

    def _closed(
        self,
        port: int,
        requests: Sequence[bytes],
        connections: int,
        seconds: float | None = None,
        *,
        interrupts: bool = True,
    ) -> Loaded:
        taken = seconds or self._scale.seconds
        return _measured(
            lambda: closed_loop(port, requests, connections=connections, seconds=taken, interrupts=interrupts)
        )


def _wrong(answers: Answers) -> int:
    """Requests that were neither answered nor told that it is too much."""
    return answers.errors - answers.by_status.get(TOO_MANY_REQUESTS, 0)


def _measured(load: Callable[[], Answers]) -> Loaded:
    """Run the load and see what the replicas take for it."""
    pids = replica_pids()
    before = sum(cpu_seconds(pid) for pid in pids)
    answers = load()
    return Loaded(answers, sum(cpu_seconds(pid) for pid in pids) - before)


def _home(root: Path, redis_url: str) -> Home:
    return Home(
        root=root,
        feature_repo=root / "feature_repo",
        data=root / "data",
        decisions=root / "decisions",
        models=root / "models",
        given_redis_url=redis_url,
        kafka_servers=None,
    )


def _bars(f: Mapping[str, float]) -> list[Bar]:
    wanted = [
        Bar("explain_rps", f["explain_rps"], 2_000),
        Bar("explain_over_docs", rounded(f["explain_rps"] / f["docs_rps"]), 15),
        Bar("explain_over_expert", rounded(f["explain_rps"] / f["expert_rps"]), 6),
        Bar("explain_c1_p50_ms", f["explain_c1_p50_ms"], 0.9, at_most=True),
        Bar("c1_over_docs", rounded(f["docs_c1_p50_ms"] / f["explain_c1_p50_ms"]), 10),
        Bar("open_p99_ms", f["open_p99_ms"], 6, at_most=True),
        Bar("open_p999_ms", f["open_p999_ms"], 20, at_most=True),
        Bar("errors", f["errors"], 0, at_most=True),
        Bar("score_rps", f["score_rps"], 3_500),
        Bar("overload_goodput", f["overload_goodput"], 0.85),
        Bar("overload_p99_ms", f["overload_p99_ms"], 50, at_most=True),
        Bar("overload_errors", f["overload_errors"], 0, at_most=True),
        Bar("rss_mib", f["rss_mib"], 600, at_most=True),
    ]
    if "batch_actors_per_s" in f:
        wanted.append(Bar("batch_actors_per_s", f["batch_actors_per_s"], 6_000))
    if "rss_growth" in f:
        wanted.append(Bar("rss_growth", f["rss_growth"], 0.02, at_most=True))
    return wanted
