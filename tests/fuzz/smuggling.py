"""Requests of doubtful framing to the gateway, directly and through nginx with the sample configuration.

Nothing that is hidden in a request's body is taken for a request, and nobody gets an answer that is another's.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from redis import Redis

sys.path.append(str(Path(__file__).parent))
from framings import CODINGS, FIRST_LINES, LENGTHS, NAMES, SIZES, framings, strictly_read
from mutate import Mutator

ROOT = Path(__file__).parents[2]
PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
AT_ONCE = 40
FRAMINGS = len(list(framings("")))
PATIENCE = 10.0
FILES = 6
SIZE = 3000
_LOGGED = re.compile(r'"(\S+) [^"]*" (\d{3}) \d+ \S+ upstream=(\S+(?:, \S+)*) "([^"]*)"')
_MARK = re.compile(r"[shv]-[0-9]+")
WORDS = (
    *CODINGS,
    *NAMES,
    *LENGTHS,
    *SIZES,
    "\r\n",
    "\n",
    "Content-Length: ",
    "Transfer-Encoding: chunked\r\n",
    "0\r\n\r\n",
)


@dataclass
class Served:
    """A running gateway, its files `smuggle-N`, and links to them."""

    port: int
    redis: Redis
    token: Callable[[str], str]
    log: Callable[[], str]

    def agents(self) -> Counter[str]:
        """How many requests of each User-Agent it has decided."""
        rows = self.redis.xrange("gw:{0}:events")
        decided = ("download.allowed", "download.denied")
        return Counter(event.get("user_agent.original", "") for _, event in rows if event["type"] in decided)


def content(number: int) -> bytes:
    return (f"this is file {number} and no other\n" * 200).encode()[:SIZE]


def name(number: int) -> str:
    return f"smuggle-{number % FILES}"


class Nginx:
    """Debian's nginx with config/nginx.conf, of which only addresses and paths are changed. `keepalive`: connections
    to the gateway are kept, as ops would add it and where one request's rest would become another's beginning.
    """

    def __init__(self, folder: Path, port: int, gateway: int, *, keepalive: bool) -> None:
        self.port, self.folder = port, folder
        upstream = f"upstream gateway {{ server 127.0.0.1:{gateway}; keepalive {8 if keepalive else 0}; }}"
        paths = " ".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = (ROOT / "config" / "nginx.conf").read_text(encoding="utf-8")
        for old, new in (
            ("worker_processes auto;", "worker_processes 1; daemon off; master_process off;"),
            ("pid /tmp/nginx.pid;", f"pid {folder}/pid;"),
            ("access_log /dev/stdout masked;", f"access_log {folder}/access.log masked; {paths}"),
            ("    server {", f"    {upstream if keepalive else ''}\n    server {{"),
            ("listen 80;", f"listen 127.0.0.1:{port};"),
            ("http://gateway:8080", "http://gateway" if keepalive else f"http://127.0.0.1:{gateway}"),
        ):
            assert text.count(old) == 1, f"the sample configuration has no longer one {old}"
            text = text.replace(old, new)
        (folder / "nginx.conf").write_text(text, encoding="utf-8")
        assert PROGRAM is not None
        command = [PROGRAM, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    async def ready(self) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            assert self.process.poll() is None, "nginx has ended"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                assert time.monotonic() < until, "nginx does not listen"
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return

    def passed_on(self) -> tuple[Counter[str], Counter[str]]:
        """How many downloads of each User-Agent the gateway has answered, and may have been asked for at most.

        The two differ where nginx gave up in between: the client was gone (499), or its body was bad (400).
        """
        lines = (self.folder / "access.log").read_text(errors="replace").splitlines()
        found = [line for each in lines if (line := _LOGGED.search(each))]
        assert len(found) == len(lines), "a line of the access log is not understood"
        asked = [line for line in found if line[1] == "GET"]
        answered = [line for line in asked if line[3] in ("200", "206")]
        return Counter(line[4] for line in answered), Counter(line[4] for line in asked)

    def forget(self) -> None:
        """Begin a new page of the access log."""
        (self.folder / "access.log").write_text("")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)


@dataclass
class Attack:
    """One connection: what is sent, and the User-Agents of the shown and of the hidden request."""

    raw: bytes
    shown: str
    hidden: str
    late: bytes = b""
    answer: bytes = b""


@dataclass
class Attacker:
    """Numbers every request, so that each is known by its User-Agent wherever it turns up."""

    served: Served
    rng: Random
    count: int = 0
    sent: list[Attack] = field(default_factory=list)

    def request(self, kind: str, framing: str = "", line: str = "GET {path} HTTP/1.1") -> tuple[str, str]:
        """A request's User-Agent and its bytes."""
        self.count += 1
        agent = f"{kind}-{self.count}"
        path = f"/d/{self.served.token(name(self.count))}"
        return agent, f"{line.format(path=path)}\r\nHost: h\r\nUser-Agent: {agent}\r\n{framing}\r\n"

    def every(self) -> list[Attack]:
        """Every framing, and every first line over one that is in no doubt."""
        attacks = [self.attack(number) for number in range(FRAMINGS)]
        return attacks + [self.attack(-1, line=line) for line in FIRST_LINES]

    def attack(self, number: int, *, mutated: bool = False, line: str = "GET {path} HTTP/1.1") -> Attack:
        """The framing of this number around a hidden request; the last one is in no doubt."""
        hidden, inner = self.request("h")
        every = [*framings(inner), (f"Content-Length: {len(inner)}\r\n", inner)]
        framing, body = every[number]
        if mutated:
            framing = Mutator(self.rng, WORDS, [each[0] for each in every]).text(framing)[:4000]
            if self.rng.random() < 0.3:
                body = Mutator(self.rng, WORDS, []).text(body)[:8000]
        shown, head = self.request("s", framing, line)
        # What follows the hidden request comes later: junk in the same packet would have the whole of it refused.
        begins, _, late = body.partition(inner)
        raw = head + (begins + inner if inner in body else body)
        made = Attack(raw.encode("latin-1", "replace"), shown, hidden, late.encode("latin-1", "replace"))
        self.sent.append(made)
        return made


async def send(port: int, attack: Attack) -> None:
    """All of it at once, then the end of what we send: half-closed, so that both sides stop waiting for more."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(attack.raw)
                await take(reader, attack, 0.3)
                writer.write(attack.late)
                await take(reader, attack, 0.1)
                if not reader.at_eof():
                    writer.write_eof()
                    await take(reader, attack, 0.3)
            finally:
                writer.close()
    except OSError:
        pass  # cut, which is an answer too; a timeout is one of these


async def take(reader: asyncio.StreamReader, attack: Attack, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            while data := await reader.read(65_536):
                attack.answer += data
    except TimeoutError:
        pass


async def send_all(port: int, attacks: Iterable[Attack]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(attack: Attack) -> None:
        async with gate:
            await send(port, attack)

    await asyncio.gather(*(one(attack) for attack in attacks))


async def buyer(port: int, attacker: Attacker, rounds: int) -> None:
    """Asks for all files in a pipeline, again and again, and gets each of them in its turn."""
    for _ in range(rounds):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            first = attacker.count + 1
            requests = [attacker.request("v")[1] for _ in range(FILES)]
            writer.write("".join(requests).encode())
            for number in range(first, first + FILES):
                async with asyncio.timeout(PATIENCE):
                    head = await reader.readuntil(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 200 "), f"a buyer got {head[:40]!r}"
                    body = await reader.readexactly(SIZE)
                assert body == content(number % FILES), "a buyer got another one's file"
        finally:
            writer.close()


async def agree(served: Served, nginx: Nginx, before: Counter[str]) -> None:
    """Wait until the gateway has decided what nginx sent, each request once; raises where it decided anything else."""
    until = time.monotonic() + PATIENCE
    while True:
        decided = _marked(served.agents() - before)
        least, most = map(_marked, nginx.passed_on())
        assert time.monotonic() < until, f"{least - decided} was sent and not decided, {decided - most} not sent"
        if least <= decided <= most:
            return
        await asyncio.sleep(0.1)


def _marked(agents: Counter[str]) -> Counter[str]:
    return Counter({agent: count for agent, count in agents.items() if _MARK.fullmatch(agent)})


async def through_nginx(
    served: Served, nginx: Nginx, attacks: Sequence[Attack], attacker: Attacker, rounds: int
) -> None:
    """What nginx says that it has sent is what the gateway has decided, and buyers beside it are well served."""
    nginx.forget()
    before = served.agents()
    await asyncio.gather(send_all(nginx.port, attacks), *(buyer(nginx.port, attacker, rounds) for _ in range(2)))
    await buyer(nginx.port, attacker, 1)
    await agree(served, nginx, before)
    unharmed(served, attacks)


async def directly(served: Served, attacks: Sequence[Attack], attacker: Attacker) -> None:
    """The gateway decides no request that is not beyond doubt."""
    await asyncio.gather(send_all(served.port, attacks), buyer(served.port, attacker, 1))
    decided = await quiet(served)
    for attack in attacks:
        certain = Counter(agent.decode("latin-1") for agent in strictly_read(attack.raw + attack.late))
        for agent in (attack.shown, attack.hidden):
            assert decided[agent] <= certain[agent], f"{agent} was decided, and is no request: {attack.raw!r}"
    unharmed(served, attacks)


async def quiet(served: Served) -> Counter[str]:
    """What the gateway has decided when it decides nothing more."""
    decided = served.agents()
    while True:
        await asyncio.sleep(0.3)
        before, decided = decided, served.agents()
        if before == decided:
            return decided


def unharmed(served: Served, attacks: Sequence[Attack]) -> None:
    log = served.log()
    assert "Traceback" not in log
    assert " ERROR " not in log
    for attack in attacks:
        assert not re.search(rb"HTTP/1\.[01] 50[0234] ", attack.answer), f"{attack.answer[:60]!r} to {attack.raw!r}"
