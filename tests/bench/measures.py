"""What is measured, one function a row or a few. Subjects of one measure take turns (A B A B …) in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from clients import CONNECTIONS, Load, Stalled, download, fetch, first_byte_seconds, open_connection, wrk
from machine import NotMeasured, cores, pss_kib, socket_kib, tree
from servers import Server, Stage, end
from table import NO_VERDICT, Row, figure, verdict

T = TypeVar("T")

GIB = 1 << 30
AT_ONCE = 4
"""Downloads at the same time in the measures of the byte plane."""
SETTLED = 0.25
"""Seconds after the last byte, in which the gateway settles: its CPU belongs to the download."""
STORE_FILES = 200


@dataclass(frozen=True)
class Size:
    """How long a run takes. `rounds` of each subject; `stalled` downloads at once; times in seconds.

    `tokens`: distinct ones of a round of requests, more than the gateway remembers (4,096), so each is checked anew.
    """

    rounds: int
    big_bytes: int
    stalled: int
    load_seconds: float
    tokens: int
    first_bytes: int
    starts: int


FULL = Size(rounds=3, big_bytes=256 << 20, stalled=1000, load_seconds=4, tokens=20_000, first_bytes=400, starts=3)
QUICK = Size(rounds=2, big_bytes=64 << 20, stalled=200, load_seconds=1, tokens=5_000, first_bytes=100, starts=2)


def everything(stage: Stage, size: Size) -> Iterator[Row]:
    """All rows of house.md's Measures, in turn; a row that cannot be had says why."""
    nginx = "≤ 1 × the peer"
    best = "≤ 1 × the better peer"
    byte_plane = [
        ("CPU s per GiB, local file", "file", [stage.local_peer], nginx, 1.0),
        ("CPU s per GiB, plain-HTTP store", "s3", [stage.proxy, stage.haproxy], best, 1.0),
        ("CPU s per GiB, HTTPS store", "tls", [stage.tls_proxy], "≤ 0.65 × nginx", 0.65),
    ]
    for measure, kind, peers, target, most in byte_plane:
        yield from _or_why(measure, target, partial(_cpu_per_gib, stage, size, measure, kind, peers, target, most))
    yield from _or_why("stalled downloads", "≤ 24 KiB and ≤ 512 KiB each", partial(_stalled, stage, size))
    yield from _or_why("requests/s on one core", "≥ 1 × the peer", partial(_decisions, stage, size))
    for name, cold in (("first byte behind the store's own", False), ("the same, object not asked for before", True)):
        yield from _or_why(name, "≤ 5 ms more at p99", partial(_first_byte, stage, size, name, cold=cold))
    for kind, origin in (("s3", "bucket"), ("file", "folder")):
        name = f"start of serve to first byte, {origin}"
        yield from _or_why(name, "< 1 s", partial(_start, stage, size, name, kind))
    yield Row.missing("10,000 CIDRs and 300 rules", "≤ 1.2 × ten", "this release has no rules")


def _or_why(measure: str, target: str, rows: Callable[[], list[Row]]) -> list[Row]:
    try:
        return rows()
    except NotMeasured as reason:
        return [Row.missing(measure, target, str(reason))]
    except OSError as error:
        return [Row.missing(measure, target, f"it failed: {error}")]


def _present(starters: Sequence[Callable[[], Server]]) -> tuple[list[Server], str]:
    """The peers that are there, and why the others are not."""
    servers, reasons = [], []
    for start in starters:
        try:
            servers.append(start())
        except NotMeasured as reason:
            reasons.append(f"not measured: {reason}")
    return servers, "; ".join(dict.fromkeys(reasons))


def _in_turns(servers: Sequence[Server], rounds: int, run: Callable[[Server], T]) -> list[list[T]]:
    """What `run` gave for each server, `rounds` times, one after the other so that they share the machine's moods."""
    results: list[list[T]] = [[] for _ in servers]
    for _ in range(rounds):
        for server, given in zip(servers, results, strict=True):
            given.append(run(server))
    return results


def _cpu_per_gib(
    stage: Stage,
    size: Size,
    measure: str,
    kind: str,
    starters: Sequence[Callable[[], Server]],
    target: str,
    most: float,
) -> list[Row]:
    peers, absent = _present(starters)
    servers = [stage.gateway(kind), *peers]

    def run(server: Server) -> float:
        paths = [server.path("big.bin") for _ in range(AT_ONCE)]
        before = server.cpu()
        download(server.port, paths, stage.big_bytes)
        time.sleep(SETTLED)
        return (server.cpu() - before) * GIB / (AT_ONCE * stage.big_bytes)

    _in_turns(servers, 1, run)
    rounds = size.rounds * (3 if kind == "file" else 1)  # its turns are short, and the two are close
    ours, *theirs = _in_turns(servers, rounds, run)
    return [Row.compared(measure, ours, _named(peers, theirs), target, most=most, absent=absent)]


def _named(peers: Sequence[Server], figures: Sequence[Sequence[float]]) -> dict[str, Sequence[float]]:
    return {peer.name: values for peer, values in zip(peers, figures, strict=True)}


def _stalled(stage: Stage, size: Size) -> list[Row]:
    peers, absent = _present([stage.proxy, stage.haproxy])
    servers = [stage.gateway("s3"), *peers]
    # One round: a second one would find the memory of the first still in the process and count it as nobody's.
    figures = _in_turns(servers, 1, partial(_memory_of_stalled, count=size.stalled))
    process, kernel = ([[given[which] for given in of_server] for of_server in figures] for which in (0, 1))
    each = f"KiB per stalled download ({size.stalled:,} at once)"
    return [
        Row.compared(f"process {each}", process[0], _named(peers, process[1:]), "≤ 24 KiB", limit=24, absent=absent),
        Row.compared(f"its sockets' {each}", kernel[0], _named(peers, kernel[1:]), "≤ 512 KiB", limit=512),
    ]


def _memory_of_stalled(server: Server, *, count: int) -> tuple[float, float]:
    def now() -> tuple[float, float]:
        pids = tree(server.pid)
        return pss_kib(pids), socket_kib(pids)

    before = now()
    stalled = Stalled(server.port, [server.path("big.bin") for _ in range(count)])
    try:
        time.sleep(2.5)  # until every buffer on the way is full
        after = now()
    finally:
        stalled.close()
    time.sleep(1.0)  # until all of it is freed again, before the next one's turn
    process, kernel = ((full - empty) / count for full, empty in zip(after, before, strict=True))
    return process, kernel


@dataclass(frozen=True)
class _Cost:
    load: Load
    server: float
    """CPU µs per request, like `redis`."""
    redis: float
    busy: float
    """CPU time per wall time, %."""


def _decisions(stage: Stage, size: Size) -> list[Row]:
    redis = stage.redis()
    peers, absent = _present([stage.lua])

    def run(server: Server, rate: float = 0) -> _Cost:
        paths = stage.folder / "paths.txt"
        wanted = size.tokens if not rate else min(size.tokens, int(rate * size.load_seconds * 1.2) + 1)
        paths.write_text("".join(f"{server.path('small.bin')}\n" for _ in range(wanted)))
        ours, its = server.cpu(), redis.cpu()
        load = wrk(server.port, paths, size.load_seconds, rate=rate)
        time.sleep(SETTLED)
        spent = server.cpu() - ours
        each = 1e6 / load.requests
        return _Cost(load, spent * each, (redis.cpu() - its) * each, 100 * spent / size.load_seconds)

    servers = [stage.gateway("s3"), *peers, stage.gateway("file")]
    *costs, folder = _in_turns(servers, size.rounds, run)
    half = statistics.median(cost.load.rate for cost in costs[0]) / 2
    paced = _in_turns(servers[:-1], size.rounds, partial(run, rate=half))

    def row(measure: str, of: Callable[[_Cost], float], target: str, data: Sequence[Sequence[_Cost]] = costs,
            **verdict: float) -> Row:  # fmt: skip
        values = [[of(cost) for cost in given] for given in data]
        return Row.compared(measure, values[0], _named(peers, values[1:]), target, absent=absent, **verdict)

    by_folder = figure([cost.load.rate for cost in folder])
    return [
        row(f"requests/s, {CONNECTIONS} connections, 4 KiB", lambda c: c.load.rate, "≥ 1 × the peer", least=1.0),
        row("% of its core busy meanwhile", lambda c: c.busy, "—"),
        row("requests per CPU second of the server", lambda c: 1e6 / c.server, "≥ 1 × the peer", least=1.0),
        row("Redis CPU µs per request", lambda c: c.redis, "—"),
        Row("requests/s, the file from a folder", by_folder, "—", None, "—", NO_VERDICT),
        row(f"p50 ms at {half:,.0f} requests/s", lambda c: c.load.p50, "—", paced),
        row(f"p99 ms at {half:,.0f} requests/s", lambda c: c.load.p99, "≤ 1 × the peer", paced, most=1.0),
    ]  # fmt: skip


def _first_byte(stage: Stage, size: Size, measure: str, *, cold: bool) -> list[Row]:
    store, gateway = stage.origin(), stage.gateway("s3")
    folder = stage.folder / "www" / "bucket" / "many"
    folder.mkdir(exist_ok=True)
    count = min(size.first_bytes, STORE_FILES) if cold else size.first_bytes
    for number in range(count if cold else 1):
        (folder / f"{number}.bin").write_bytes(bytes(4096))
    took: dict[str, list[float]] = {"store": [], "gateway": []}
    with open_connection(store.port) as direct, open_connection(gateway.port) as behind:
        for number in range(-5, count):
            name = f"many/{number % count if cold else 0}.bin"
            for key, sock, server in (("store", direct, store), ("gateway", behind, gateway)):
                path = server.path(name) + (_PRESIGNED if server is store else "")
                seconds = first_byte_seconds(sock, path)
                if number >= 0:
                    took[key].append(seconds * 1000)
            time.sleep(0.002)
    p50, p99 = ({key: _percentile(values, of) for key, values in took.items()} for of in (50, 99))
    more = {of: at["gateway"] - at["store"] for of, at in (("p50", p50), ("p99", p99))}
    ours = f"+{more['p50']:.2f} ms p50, +{more['p99']:.2f} ms p99"
    theirs = f"store: {p50['store']:.2f} ms p50, {p99['store']:.2f} ms p99"
    return [Row(measure, ours, theirs, None, "≤ 5 ms more at p99", verdict([more["p99"]], most=5))]


_PRESIGNED = (
    "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=bench%2F20261121%2Fus-east-1%2Fs3%2Faws4_request"
    f"&X-Amz-Date=20261121T000000Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature={'0' * 64}"
)
"""As long as a presigned URL's; the store here checks no signature, for the gateway's requests neither."""


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _start(stage: Stage, size: Size, measure: str, kind: str) -> list[Row]:
    path = stage.gateway(kind).path
    took = []
    for _ in range(size.starts):
        command, environ, port = stage.gateway_command(kind)
        began = time.perf_counter()
        process = stage.spawn(command, environ, *cores())
        try:
            while not _given(port, path("small.bin")):
                if process.poll() is not None or time.perf_counter() - began > 15:
                    raise NotMeasured("the gateway does not start")
                time.sleep(0.005)
            took.append(time.perf_counter() - began)
        finally:
            end(process)
    return [Row(measure, f"{figure(took)} s", "—", None, "< 1 s", verdict(took, most=1))]


def _given(port: int, path: str) -> bool:
    with suppress(OSError):
        return bool(fetch(port, path))
    return False
