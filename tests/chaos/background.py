"""The crowd that goes on downloading while faults are played. It expects nothing; what it saw is in the log.

Every device has a network of its own and every link few downloads, so that nobody can say it was another's join.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from stage import Stage

SMALL, MEDIUM, LARGE = ("small.bin", 4096), ("medium.bin", 300_000), ("large.bin", 8 << 20)
REMEMBERED = 200
REVOKE_EVERY = 15.0
"""Each is a process of its own, and counts as a load of its own kind."""
PART = 64 * 1024

Habit = Callable[[], Awaitable[None]]


@asynccontextmanager
async def background(stage: Stage, pace: float = 0.4) -> AsyncIterator[None]:
    """Every habit, again and again, with pauses of `pace` seconds on average."""
    crowd = _Crowd(stage, random.Random(stage.rng.random()))
    tasks = [asyncio.create_task(crowd.live(habit, pace)) for habit in crowd.habits()]
    tasks.append(asyncio.create_task(crowd.live(crowd.revoked, REVOKE_EVERY)))
    try:
        yield
        for task in tasks:
            assert not task.done(), f"a part of the crowd has ended: {task}"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Crowd:
    def __init__(self, stage: Stage, rng: random.Random) -> None:
        self._stage = stage
        self._rng = rng
        self._used_up: deque[str] = deque(maxlen=REMEMBERED)
        self._ended: deque[str] = deque(maxlen=REMEMBERED)
        for name, size in (SMALL, MEDIUM, LARGE):
            stage.file(name, size)

    def habits(self) -> list[Habit]:
        return [self.buyers, self.race, self.parts, self.resume, self.leave, self.again, self.without_right, self.large]

    async def live(self, habit: Habit, pace: float) -> None:
        while True:
            await habit()
            await asyncio.sleep(self._rng.uniform(0, 2 * pace))

    async def buyers(self) -> None:
        """One device after another, each the whole file, one more than the link allows."""
        name, limit = self._rng.choice((SMALL, MEDIUM))[0], self._rng.randint(1, 3)
        token = self._stage.token(name, downloads=limit)
        for _ in range(limit + 1):
            await self._stage.fetch(token)
        self._used_up.append(token)

    async def race(self) -> None:
        """Twice as many devices as downloads, all at once."""
        limit = self._rng.randint(1, 3)
        token = self._stage.token(self._rng.choice((SMALL, MEDIUM))[0], downloads=limit)
        await asyncio.gather(*(self._stage.fetch(token) for _ in range(2 * limit)))
        self._used_up.append(token)

    async def parts(self) -> None:
        """A download manager: a look, then four ranges at once."""
        token, address = self._stage.token(MEDIUM[0], downloads=1), self._stage.network()
        await self._stage.fetch(token, method="HEAD", address=address)
        quarter = -(-MEDIUM[1] // 4)
        ranges = [f"bytes={at}-{min(at + quarter, MEDIUM[1]) - 1}" for at in range(0, MEDIUM[1], quarter)]
        await asyncio.gather(*(self._stage.fetch(token, range=part, address=address) for part in ranges))

    async def resume(self) -> None:
        """Cut in the middle, by itself or by a fault, and go on from there until it is whole or nothing comes."""
        token, address = self._stage.token(LARGE[0], downloads=1), self._stage.network()
        seen = await self._stage.fetch(token, address=address, read_limit=self._rng.randint(PART, LARGE[1]))
        have = seen.received
        for _ in range(5):
            if have >= LARGE[1] or not seen.etag:
                return
            seen = await self._stage.fetch(
                token, address=address, range=f"bytes={have}-", headers={"If-Range": seen.etag}
            )
            have = seen.start + seen.received if seen.served else have

    async def leave(self) -> None:
        """A look at the first bytes and away, as scanners do; then the buyer."""
        token = self._stage.token(LARGE[0], downloads=1)
        await self._stage.fetch(token, read_limit=1000)

    async def again(self) -> None:
        """A link that was used up, or ended, comes back from elsewhere: whoever forgot that gives it once more."""
        for links in (self._used_up, self._ended):
            if links:
                await self._stage.fetch(self._rng.choice(links))

    async def without_right(self) -> None:
        """What nobody may have."""
        for kind in ("expired", "forged"):
            await self._stage.fetch(self._stage.token(SMALL[0], kind=kind))

    async def large(self) -> None:
        """The whole large file at full speed."""
        await self._stage.fetch(self._stage.token(LARGE[0], downloads=1))

    async def revoked(self) -> None:
        """A link that has served is ended, and asked for ever after."""
        token = self._stage.token(SMALL[0])
        await self._stage.fetch(token)
        if await self._stage.revoke(token):
            self._ended.append(token)
