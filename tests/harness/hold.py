"""A point at which a fake holds operations up, until a test lets them go on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass
class Hold:
    """`reached` is set once an operation waits here, which it does until `release` is set. `what`:
    the operations that are held up; each fake says how it reads that."""

    what: str
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self) -> None:
        self.reached.set()
        await self.release.wait()
