"""Several redis-servers that belong together: a master with replica and Sentinels, and a Redis Cluster.

Both fail over fast (1 s), so that a run of faults stays short; nothing else differs from a shop's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis_server import RedisServer, free_port, until

SLOTS = 16384
DETECT_MS = 1000
"""How long a server is silent before the others take it for dead."""
_PATIENCE = 20.0


class Sentinel(RedisServer):
    """redis-server in its other mode: its settings are a file, which it rewrites."""

    def __init__(self, folder: Path, master_port: int, quorum: int) -> None:
        super().__init__(folder)
        self._settings = folder / "sentinel.conf"
        folder.mkdir(parents=True)
        self._settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor mymaster 127.0.0.1 {master_port} {quorum}\n"
            f"sentinel down-after-milliseconds mymaster {DETECT_MS}\n"
            f"sentinel failover-timeout mymaster {3 * DETECT_MS}\n"
        )

    def _command(self) -> list[str]:
        program, *_ = super()._command()
        return [program, str(self._settings), "--sentinel"]


class SentinelGroup:
    """A master, a replica of it and Sentinels that watch both."""

    def __init__(self, folder: Path, *, sentinels: int = 3, replicas: int = 1) -> None:
        self.master = RedisServer(folder / "0")
        following = ["--replicaof", f"127.0.0.1 {self.master.port}", "--repl-diskless-sync-delay", "0"]
        self.replicas = [RedisServer(folder / str(n), options=following) for n in range(1, replicas + 1)]
        quorum = sentinels // 2 + 1
        self.sentinels = [Sentinel(folder / f"s{n}", self.master.port, quorum) for n in range(sentinels)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/mymaster/0"

    def server(self, port: int) -> RedisServer:
        return next(server for server in (self.master, *self.replicas) if server.port == port)

    def now_master(self) -> int:
        """The master's port, as a Sentinel that lives knows it."""
        alive = next(sentinel for sentinel in self.sentinels if sentinel.pid)
        with closing(alive.client()) as client:
            return int(client.sentinel_get_master_addr_by_name("mymaster")[1])

    @contextmanager
    def running(self, *, acquainted: bool = True) -> Iterator[SentinelGroup]:
        """All of them; where `acquainted`, each Sentinel knows the others and the replicas."""
        with ExitStack() as ends:
            for server in (self.master, *self.replicas, *self.sentinels):
                ends.callback(server.kill)
                server.start()
            if acquainted:
                until(self._complete, _PATIENCE, "the Sentinels did not find each other and the replicas")
            yield self

    def _complete(self) -> bool:
        for sentinel in self.sentinels:
            with closing(sentinel.client()) as client:
                state = client.sentinel_master("mymaster")
            if state["num-other-sentinels"] != len(self.sentinels) - 1 or state["num-slaves"] != len(self.replicas):
                return False
        for replica in self.replicas:
            with closing(replica.client()) as client:
                if client.info("replication")["master_link_status"] != "up":
                    return False
        return True


class ClusterGroup:
    """`masters` that share the slots evenly and in order, and a replica of each of the first `replicas` of them."""

    def __init__(self, folder: Path, *, masters: int = 3, replicas: int = 0) -> None:
        self._buses: dict[int, str] = {}

        def server(name: str) -> RedisServer:
            port = str(free_port())  # the default, 10000 above the other, may be taken or no port
            detect = ["--cluster-node-timeout", str(DETECT_MS), "--cluster-require-full-coverage", "no"]
            diskless = ["--repl-diskless-sync-delay", "0"]
            options = ["--cluster-enabled", "yes", "--cluster-port", port, *detect, *diskless]
            made = RedisServer(folder / name, options=options)
            self._buses[made.port] = port
            return made

        self.masters = [server(f"m{n}") for n in range(masters)]
        self.replicas = [server(f"r{n}") for n in range(replicas)]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.masters)

    def owner(self, shard: int) -> RedisServer:
        """The master that was given the shard's slot at first."""
        return self.masters[key_slot(str(shard).encode()) * len(self.masters) // SLOTS]

    @contextmanager
    def running(self) -> Iterator[ClusterGroup]:
        """All of them, and every one takes every slot for served."""
        with ExitStack() as ends:
            clients = []
            for server in (*self.masters, *self.replicas):
                ends.callback(server.kill)
                server.start()
                clients.append(ends.enter_context(closing(server.client())))
            self._share_out(clients[: len(self.masters)])
            for server in (*self.masters[1:], *self.replicas):
                clients[0].execute_command("CLUSTER MEET", "127.0.0.1", server.port, self._buses[server.port])
            until(lambda: all(_known(client) == len(clients) for client in clients), _PATIENCE, "they did not all meet")
            for client, master in zip(clients[len(self.masters) :], clients, strict=False):
                client.execute_command("CLUSTER REPLICATE", master.execute_command("CLUSTER MYID"))
            until(lambda: all(map(self._ready, clients)), _PATIENCE, "the cluster did not come up")
            yield self

    def _ready(self, client: Redis) -> bool:
        try:
            state, link = client.cluster("INFO"), client.info("replication").get("master_link_status", "up")
            seen = sum(len(entry) - 3 for entry in client.execute_command("CLUSTER SLOTS"))
        except RedisError:
            return False
        served = state["cluster_state"] == "ok" and int(state["cluster_slots_ok"]) == SLOTS
        return served and link == "up" and seen == len(self.replicas)

    def _share_out(self, clients: list[Redis]) -> None:
        for number, client in enumerate(clients):
            first, past = (-(-SLOTS * edge // len(clients)) for edge in (number, number + 1))
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, past - 1)


def _known(client: Redis) -> int:
    return int(client.cluster("INFO")["cluster_known_nodes"])
