"""Every metric, once; docs/metrics.md explains them. Labels are short closed lists, never a token, order or file.

Workers write into memory-mapped files that the supervisor adds up. A file belongs to a worker's slot, not to its
process id, so that a worker that dies a thousand times leaves no thousand files and its counters go on.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SLOT_VARIABLE = "DOWNLOAD_GATEWAY_SLOT"
_MEMORY = Path("/dev/shm")  # noqa: S108  a folder of our own is made in it

if FOLDER_VARIABLE in os.environ and SLOT_VARIABLE in os.environ:
    _slot = int(os.environ[SLOT_VARIABLE])
    values.ValueClass = values.MultiProcessValue(lambda: _slot)  # type: ignore[no-untyped-call]  # the library has no types here

REGISTRY = CollectorRegistry()

REQUESTS = Counter("gateway_requests", "Requests answered.", ["outcome", "status"], registry=REGISTRY)
DOWNLOADS = Counter("gateway_downloads", "Downloads that ended.", ["outcome"], registry=REGISTRY)
BYTES_DELIVERED = Counter("gateway_bytes_delivered", "Body bytes acknowledged by clients.", registry=REGISTRY)
REFUSALS = Counter("gateway_refusals", "Requests refused.", ["reason"], registry=REGISTRY)
HOOKS = Counter("gateway_hooks", "Webhooks of shops answered.", ["outcome"], registry=REGISTRY)
WEBHOOKS = Counter("gateway_webhooks", "Tries to tell the shop of an event.", ["outcome"], registry=REGISTRY)
SELF_SERVICE = Counter("gateway_self_service", "Questions of buyers for their links.", ["outcome"], registry=REGISTRY)
RELOADS = Counter(
    "gateway_reloads", "Readings again of rules and geo databases.", ["what", "outcome"], registry=REGISTRY
)
RULE_VERDICTS = Counter(
    "gateway_rule_verdicts", "Words of single rules.", ["rules", "rule", "verdict"], registry=REGISTRY
)
RULES_ROLLED_BACK = Gauge(
    "gateway_rules_rolled_back",
    "1 while the rules in the file were rolled back.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
FILES_WRONG = Gauge(
    "gateway_files_wrong",
    "1 while the files are not those in force, being wrong.",
    ["what"],
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
CONNECTIONS_CUT = Counter("gateway_connections_cut", "Connections ended by the server.", ["why"], registry=REGISTRY)
CONNECTIONS = Gauge("gateway_connections", "Open client connections.", multiprocess_mode="livesum", registry=REGISTRY)
INFLIGHT = Gauge("gateway_inflight", "Responses being sent.", multiprocess_mode="livesum", registry=REGISTRY)
MEMORY = Gauge(
    "gateway_memory_bytes", "Resident memory of the workers.", multiprocess_mode="livesum", registry=REGISTRY
)
MEMORY_CAP = Gauge("gateway_memory_cap_bytes", "What they may take.", multiprocess_mode="livesum", registry=REGISTRY)
STAGE_SECONDS = Histogram(
    "gateway_stage_seconds",
    "Time a request spends in one stage.",
    ["stage"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
    registry=REGISTRY,
)
REDIS_UP = Gauge("gateway_redis_up", "1 while Redis answers.", multiprocess_mode="livemin", registry=REGISTRY)
JOURNAL_UP = Gauge(
    "gateway_journal_up", "1 while the journal can be written.", multiprocess_mode="livemin", registry=REGISTRY
)
JOURNAL_TORN = Gauge(
    "gateway_journal_torn_lines",
    "Lines of the journal that could not be read back.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
SHARDS_CLOSED = Gauge(
    "gateway_shards_closed",
    "Shards not in use until what Redis lost is put back.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
FROZEN = Gauge("gateway_frozen", "1 while all downloads are stopped.", multiprocess_mode="livemax", registry=REGISTRY)
LOOP_LAG = Gauge(
    "gateway_loop_lag_seconds", "Lateness of the slowest event loop.", multiprocess_mode="livemax", registry=REGISTRY
)


RULE_NAMES_MAX = 1000
OTHER_RULES = "(others)"
_rule_names: set[str] = set()


def count_verdict(rules: str, rule: str, verdict: str) -> None:
    """One word of a rule. Names are never taken back, so those beyond RULE_NAMES_MAX share one name."""
    if rule not in _rule_names:
        if len(_rule_names) >= RULE_NAMES_MAX:
            rule = OTHER_RULES
        else:
            _rule_names.add(rule)
    RULE_VERDICTS.labels(rules, rule, verdict).inc()


class SupervisorMetrics:
    """The sum of all workers' metrics in `folder`, and the supervisor's own."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.registry = CollectorRegistry()
        MultiProcessCollector(self.registry, path=folder)  # type: ignore[no-untyped-call]  # the library has no types here
        self.restarts = Counter("gateway_worker_restarts", "Workers started again.", registry=self.registry)
        self.workers_ready = Gauge("gateway_workers_ready", "Workers that are ready.", registry=self.registry)

    def worker_gone(self, slot: int) -> None:
        """Take a dead worker's gauges out of the sums; its counters stay."""
        mark_process_dead(slot, self._folder)  # type: ignore[no-untyped-call]  # the library has no types here

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


@contextmanager
def metrics_folder() -> Iterator[str]:
    """A private folder for the workers' files, in memory where there is /dev/shm; removed at the end."""
    folder = tempfile.mkdtemp(prefix="gateway-metrics-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
