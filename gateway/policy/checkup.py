"""What `gateway doctor` says of what was found: facts in, lines out. Each line that is not ok says what to do.

CHECKS names every check; docs/doctor.md explains each, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from gateway.policy.fronts import Refused, asks_beyond
from gateway.policy.ruleset import RuleSet
from gateway.policy.units import human_size

State = Literal["ok", "warn", "FAIL"]
Check = Literal[
    "settings",
    "keys",
    "public_url",
    "management",
    "redis_down",
    "journal",
    "freeze",
    "descriptors",
    "redis",
    "eviction",
    "persistence",
    "memory",
    "replication",
    "shards",
    "origin",
    "private",
    "files",
    "geo",
    "rules",
    "doors",
    "products",
    "orders",
    "mail",
    "accounts",
    "clock",
]
CHECKS: tuple[str, ...] = get_args(Check)

OLDEST_REDIS = (6, 2)
MEMORY_WARN, MEMORY_FAIL = 0.8, 0.95
CLOCK_WARN, CLOCK_FAIL = 2.0, 60.0
REPLICA_LAG = 10
DAY = 86_400
GEO_OLD = 30 * DAY
FEW_CHARACTERS = 10
TOKEN_LENGTH = 16
DOWNLOADS_FEW = 1000
FORGETFUL = frozenset({"tmpfs", "ramfs"})
REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs"}
)

Info = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Line:
    """One answer: how it stands, of what, and a sentence that says what to do where it does not stand well."""

    state: State
    check: Check
    text: str


@dataclass(frozen=True, slots=True)
class JournalFacts:
    """A folder that was written to and fsynced, in `fsync_ms`. `free` and `used` in bytes, `since` Unix seconds."""

    is_there: bool
    fsync_ms: float
    free: int
    used: int
    since: float | None
    file_system: str


def of_journal(path: str, size: int, facts: JournalFacts, now: float) -> Line:
    """`size`: what the folder may take, in bytes."""
    if facts.file_system in FORGETFUL:
        said = f"{path} lies on {facts.file_system}, which forgets all when the machine restarts"
        return Line("warn", "journal", f"{said}; put it on a disk")
    if facts.file_system in REMOTE:
        said = (
            f"{path} lies on {facts.file_system}: when the network is gone nothing is given, and its locks may not hold"
        )
        return Line("warn", "journal", f"{said}; put it on a disk of this machine")
    if facts.free < size - facts.used:
        said = f"{path}: {human_size(facts.free)} are free and it may still grow by {human_size(size - facts.used)}"
        return Line(
            "warn", "journal", f"{said}; a full disk refuses every download, so free some or lower journal.size"
        )
    if not facts.is_there:
        return Line("ok", "journal", f"{path} is not there yet, and can be made; {human_size(facts.free)} free")
    back = "" if facts.since is None else f", reaches back {max(0.0, now - facts.since) / 3600:.1f} h"
    used = f"{human_size(facts.used)} used{back}, {human_size(facts.free)} free"
    return Line("ok", "journal", f"{path} can be written and fsynced, in {facts.fsync_ms:.0f} ms; {used}")


def of_redis(info: Info, answered_ms: float) -> Iterator[Line]:
    """What INFO says: version, eviction, persistence, memory, replication."""
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version") or "")
    if name == "Redis" and _version(version) < OLDEST_REDIS:
        yield Line("FAIL", "redis", f"Redis {version} is too old; run Redis 6.2 or later, or Valkey")
    else:
        yield Line("ok", "redis", f"{name} {version}, answered in {answered_ms:.0f} ms")
    yield _eviction(info)
    yield from _persistence(info)
    yield _memory(info)
    yield from _replication(info)


def _eviction(info: Info) -> Line:
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy == "noeviction":
        return Line("ok", "eviction", "noeviction")
    if _number(info, "maxmemory"):
        return Line("FAIL", "eviction", f"maxmemory-policy {policy} would evict counters; set it to noeviction")
    return Line(
        "warn", "eviction", f"maxmemory-policy is {policy}, harmless while maxmemory is 0; set it to noeviction"
    )


def _persistence(info: Info) -> Iterator[Line]:
    if _number(info, "loading"):
        yield Line("warn", "persistence", "Redis is still loading its data; wait until it has")
    if not _number(info, "aof_enabled"):
        said = "appendonly is off, so a crash of Redis forgets the downloads since its last snapshot, if it makes any"
        yield Line("warn", "persistence", f"{said}; set appendonly yes")
    elif info.get("aof_last_write_status", "ok") != "ok":
        yield Line("FAIL", "persistence", "Redis cannot write its append-only file; is its disk full or not writable?")
    elif info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield Line("warn", "persistence", "the last rewrite of the append-only file failed; see Redis's log and disk")
    else:
        yield Line("ok", "persistence", "append-only file")
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield Line(
            "FAIL", "persistence", "the last snapshot failed, and Redis may refuse writes; see its log and its disk"
        )


def _memory(info: Info) -> Line:
    used, most = _number(info, "used_memory"), _number(info, "maxmemory")
    if not most:
        return Line("ok", "memory", f"{human_size(used)} used, no maxmemory set")
    said = f"{human_size(used)} of {human_size(most)} used ({used / most:.0%})"
    if used >= most * MEMORY_FAIL:
        return Line("FAIL", "memory", f"{said}: soon every download is refused; raise maxmemory")
    if used >= most * MEMORY_WARN:
        return Line("warn", "memory", f"{said}; raise maxmemory, or shorten events.keep")
    return Line("ok", "memory", said)


def _replication(info: Info) -> Iterator[Line]:
    """Nothing where there is a single server."""
    if info.get("role") in ("slave", "replica"):
        yield Line("FAIL", "replication", "this Redis is a replica and takes no writes; point `redis` at its primary")
    replicas = [state for name, state in info.items() if name.startswith("slave") and isinstance(state, Mapping)]
    late = [state for state in replicas if state.get("state") != "online" or _number(state, "lag") > REPLICA_LAG]
    if late:
        said = f"{len(late)} of {len(replicas)} replicas are behind or not in step"
        yield Line("warn", "replication", f"{said}: a failover now would lose downloads; see the replicas' logs")
    elif replicas:
        yield Line("ok", "replication", f"{len(replicas)} in step")


def of_shards(first_used_with: str | None, shards: int) -> Line:
    """Whether the settings name as many shards as this Redis was first used with."""
    if first_used_with is None:
        return Line("ok", "shards", f"{shards}; this Redis was not used yet, and its first start fixes that number")
    if first_used_with != str(shards):
        return Line(
            "FAIL", "shards", f"this Redis was first used with {first_used_with}; set that, or use an empty Redis"
        )
    return Line("ok", "shards", str(shards))


def of_freeze(ordered: str, workers: str | None) -> Line:
    """Since when all is stopped: as ordered, and by what the workers say; "": it is not, None: they do not say."""
    if ordered:
        said = f"every download is refused since {ordered}"
        if workers == "":
            said = f"it is ordered since {ordered}, and the gateway of this machine does not say so (yet)"
        return Line("warn", "freeze", f"{said}; `gateway thaw` allows downloads again")
    if workers:
        said = f"the gateway of this machine refuses every download since {workers}, and Redis does not say so (yet)"
        return Line("warn", "freeze", f"{said}; `gateway thaw` allows downloads again")
    return Line("ok", "freeze", "downloads are allowed")


def of_clock(whose: str, ahead: float, uncertain: float) -> Line:
    """`ahead`: seconds that this machine's clock is ahead of theirs; `uncertain`: by how many that may be wrong."""
    surely = max(0.0, abs(ahead) - uncertain)
    said = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} {whose}"
    if surely > CLOCK_FAIL:
        return Line("FAIL", "clock", f"this machine is {said}: links end at wrong times; run an NTP client on both")
    if surely > CLOCK_WARN:
        return Line("warn", "clock", f"this machine is {said}; run an NTP client on both")
    return Line("ok", "clock", f"in step with {whose}")


def of_keys(signing: str | None, secrets: Mapping[str, str]) -> Iterator[Line]:
    """`signing`: the kid that signs; `secrets`: the text of each secret by its kid. Too short ones are no settings."""
    for kid, secret in secrets.items():
        if len(set(secret)) < FEW_CHARACTERS:
            said = f"the secret of key {kid} has only {len(set(secret))} different characters and can be guessed"
            yield Line("warn", "keys", f"{said}; make one with `gateway keys new --kid NEW`")
    if signing is None:
        yield Line("warn", "keys", "no key has use: sign, so only the shop can make links; add one where that is wrong")
    else:
        yield Line("ok", "keys", f"{signing} signs")


def of_public_url(public_url: str | None, listens_with_tls: bool) -> Line:
    if public_url is None:
        return Line("warn", "public_url", "is not set, so links name this machine; write what buyers reach it by")
    if not public_url.startswith("https://"):
        why = "" if listens_with_tls else " and end TLS in front of the gateway, or set tls"
        return Line("warn", "public_url", f"is not https, so links can be read on their way; write https://…{why}")
    return Line("ok", "public_url", public_url)


def of_management(token: str | None, users: int = 0) -> Line:
    if token is None and users:
        return Line("ok", "management", f"{users} users have tokens of their own")
    if token is None:
        return Line("warn", "management", "has no token, so metrics and API are closed; set management.token")
    if len(token) < TOKEN_LENGTH:
        return Line("warn", "management", f"its token is short; write {TOKEN_LENGTH} random characters or more")
    return Line("ok", "management", "has a token")


def of_descriptors(most: int, downloads: int) -> Line:
    """`most`: how many files one worker may have open, and how many `downloads` that allows it."""
    if downloads < DOWNLOADS_FEW:
        said = f"{most} open files allow a worker {downloads} downloads at once"
        return Line("warn", "descriptors", f"{said}; raise the hard limit (ulimit -Hn, LimitNOFILE=) to 65536")
    return Line("ok", "descriptors", f"{most} open files a worker")


def of_geo(name: str, built: int | None, now: float) -> Line:
    """`built`: when the database was built, in Unix seconds."""
    if built is None or built > now + DAY:
        return Line("warn", "geo", f"{name} does not say when it was built; get a new one")
    age = int((now - built) // DAY)
    if now - built > GEO_OLD:
        return Line("warn", "geo", f"{name} is {age} days old, and addresses move; get a new one")
    return Line("ok", "geo", f"{name}, {age} day{'' if age == 1 else 's'} old")


def of_files(looked_at: int, missing: Sequence[str]) -> Line:
    """Whether the files of the newest links are in the store."""
    if missing:
        return Line(
            "warn", "files", f"sold and not in the store: {', '.join(missing)}; put them there under these keys"
        )
    if not looked_at:
        return Line("ok", "files", "no link is registered yet")
    return Line("ok", "files", f"the newest links' files ({looked_at}) are in the store")


def _version(text: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)


def _number(info: Mapping[str, object], name: str, default: int = 0) -> int:
    value = info.get(name, default)
    try:
        return int(str(value))
    except ValueError:
        return default


def of_doors(rules: RuleSet, refused: Refused) -> Iterator[Line]:
    """Whether what the rules file asks can be kept by the doors that are set up."""
    asked = [(f"plan {name}", plan.limits) for name, plan in rules.plans.items()]
    asked += [(f"rule {rule.name}", rule.limits) for rule in rules.rules if not rule.observe]
    beyond = [(who, door, names) for who, limits in asked for door, names in asks_beyond(limits, refused)]
    for who, door, names in beyond:
        said = f"{who} has {' and '.join(names)}, which the door {door} cannot keep, so its links are refused there"
        yield Line(
            "FAIL", "doors", f"{said}; take it out, or give it up there: doors.{door}.waive: [{', '.join(names)}]"
        )
    if not beyond:
        yield Line(
            "ok", "doors", f"{' and '.join(refused)} keeps what plans and rules ask, but for what is waived there"
        )
