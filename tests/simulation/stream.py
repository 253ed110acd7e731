"""Readers of live changes in a simulation: they fall behind, vanish, hang up and come back.

Their oracle is the visible catalogue at the moment when the store writes: what is told is what a
read would show then, and a reader that is told `ready` or a position holds all that reads show.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from store_cache.api.parts import StoreParts
from store_cache.catalogue.catalogue import Catalogue
from store_cache.model.product import version_of
from tests.harness.http import HEAD_END, head_of_reply
from tests.harness.streams import STREAM, Dechunker, Event, EventParser, Shelf
from tests.simulation.checks import Checks
from tests.simulation.connection import (
    ConnectionLost,
    ServerEnd,
    TillConnection,
    request_bytes,
)
from tests.simulation.loop import Listener, SimulatedLoop, pause
from tests.simulation.marks import Marks
from tests.simulation.outbox import pending_sums, shown_rows
from tests.simulation.plan import Plan
from tests.simulation.store import SimulatedStore

SLOW, VANISHES, HANGS_UP = 0.15, 0.05, 0.15
"""How likely a reader falls behind, vanishes or hangs up each time that it looks up."""

QUIET_SECONDS = 0.2
"""Changes that are this old have been told to every reader that takes what it is sent."""

PLACE_SECONDS = 80.0
"""How long a reader that vanished keeps its place, at most: 15 s until something is written to it,
60 s in which it takes nothing, and some until that is noticed."""

CLOSE_SECONDS = 5.0
"""How long a reader that has hung up keeps its place, at most."""

LOOK_SECONDS = 0.25


class StreamEnd(ServerEnd):
    """The store's end. What a slow client does not take stays in it, and pauses the store."""

    def __init__(self, connection: StreamConnection, listener: Listener) -> None:
        super().__init__(connection)
        self._stream = connection
        self._listener = listener
        self._unread = b""
        self._has_paused = False

    def write(self, data: Any) -> None:
        self._stream.note_sent(bytes(data))
        if not self._stream.is_slow:
            self._stream.take(bytes(data))
            return
        self._unread += bytes(data)
        if not self._has_paused:
            self._has_paused = True
            self._call("pause_writing")

    def catch_up(self) -> None:
        """Deliver what the client did not take so far."""
        data, self._unread = self._unread, b""
        self._stream.take(data)
        if self._has_paused:
            self._has_paused = False
            self._call("resume_writing")

    def _call(self, name: str) -> None:
        self._listener.context.run(getattr(self._stream.protocol, name))

    def get_write_buffer_size(self) -> int:
        return len(self._unread)


class StreamConnection(TillConnection):
    """`head`: status and headers, once they have come. `is_slow`: the client takes nothing."""

    def __init__(
        self,
        loop: SimulatedLoop,
        listener: Listener,
        note_sent: Callable[[Event], None],
        note_taken: Callable[[Event], None],
    ) -> None:
        super().__init__(loop, listener)
        self._end: StreamEnd = StreamEnd(self, listener)
        self.is_slow = False
        self.status = 0
        self.ended_cleanly = False
        self._sent = _Body(note_sent)
        self._taken = _Body(note_taken)

    @property
    def protocol(self) -> asyncio.Protocol:
        assert self._protocol is not None
        return self._protocol

    def request(self, request: bytes) -> None:
        self._loop.call_soon(self._deliver, request, context=self._listener.context)

    def note_sent(self, data: bytes) -> None:
        self._sent.feed(data)

    def take(self, data: bytes) -> None:
        if self.is_open:
            self._taken.feed(data)
            self.status = self._taken.status
            self.ended_cleanly = self._taken.is_whole

    def catch_up(self) -> None:
        self.is_slow = False
        self._end.catch_up()


class _Body:
    """Takes an answer apart."""

    def __init__(self, note: Callable[[Event], None]) -> None:
        self.status = 0
        self._note = note
        self._head = b""
        self._chunks = Dechunker()
        self._parser = EventParser()

    @property
    def is_whole(self) -> bool:
        return self._chunks.is_whole

    def feed(self, data: bytes) -> None:
        if not self.status:
            self._head += data
            head, end, data = self._head.partition(HEAD_END)
            if not end:
                return
            self.status, _ = head_of_reply(head + end)
        if self.status == 200:
            for event in self._parser.feed(self._chunks.feed(data)):
                self._note(event)


@dataclass
class SimulatedReader:
    """`wanted`: ids of products; None for all of them."""

    plan: Plan
    store: SimulatedStore
    checks: Checks
    note: Callable[[str], None]
    chance: random.Random
    wanted: list[str] | None = None
    held: Shelf = field(default_factory=Shelf)
    _sent: Shelf = field(default_factory=Shelf)
    vanished_at: list[float] = field(default_factory=list)
    _last_id: str | None = None
    _connection: StreamConnection | None = None
    _marks: Marks = field(init=False)

    def __post_init__(self) -> None:
        self._marks = self.checks.watermarks()

    async def work(self) -> None:
        while True:
            await pause(self.chance.expovariate(1.0))
            if not self._is_open():
                self.connect()
            elif not self.plan.is_calm:
                await self._misbehave()

    async def _misbehave(self) -> None:
        connection, kind = self._connection, self.chance.random()
        assert connection is not None
        if kind < SLOW:
            self.note("stream slow")
            connection.is_slow = True
            await pause(self.chance.choice((0.05, 1.0, 20.0)))
            connection.catch_up()
        elif kind < SLOW + VANISHES:
            self.note("stream vanished")
            self.vanished_at.append(asyncio.get_running_loop().time())
            connection.is_slow = True
            self._connection = None
        elif kind < SLOW + VANISHES + HANGS_UP:
            self.note("stream hung up")
            connection.hang_up()

    def _is_open(self) -> bool:
        """Whether a stream is open, and not a connection on which the store has refused one."""
        connection = self._connection
        return connection is not None and connection.is_open and connection.status in (0, 200)

    # -- the connection --------------------------------------------------------------------

    def connect(self) -> None:
        """Open a stream: go on from the last event, or begin at the start."""
        headers = {}
        goes_on = self._last_id is not None and self.chance.random() < 0.7
        if goes_on and self._last_id is not None:
            headers["Last_Event_ID"] = self._last_id
            self._sent = Shelf(dict(self.held.rows), self.held.is_ready)
        else:
            self.held, self._sent = Shelf(), Shelf()
        try:
            connection = self.store.connect(self._stream_connection)
        except ConnectionLost:
            return
        assert isinstance(connection, StreamConnection)
        query = "?from=start"
        if self.wanted is not None:
            query += "&productIds=" + ",".join(self.wanted)
        self.note("stream goes on" if goes_on else "stream begins")
        self._connection = connection
        connection.request(request_bytes("GET", STREAM + query, **headers))

    def _stream_connection(self, loop: SimulatedLoop, listener: Listener) -> StreamConnection:
        return StreamConnection(loop, listener, self._note_sent, self._note_taken)

    def _note_taken(self, event: Event) -> None:
        self.held.apply(event)
        if event.id is not None:
            self._last_id = event.id

    # -- the oracle ------------------------------------------------------------------------

    def _note_sent(self, event: Event) -> None:
        """Check an event at the moment when the store writes it."""
        self._sent.apply(event)
        store = self.store.parts
        catalogue = None if store is None else store.writer.catalogue
        if store is None or catalogue is None:
            self.checks.find(f"a stream told {event.name} while reads show nothing")
            return
        is_telling = store.writer.announcer.is_telling
        match event.name:
            case "product":
                product_id = event.value["productId"]
                shown = shown_rows(store, [product_id]).get(product_id)
                if shown != event.data and not is_telling:
                    self.checks.find(f"a stream told {event.data!r}, and reads show {shown!r}")
                self._check_order(event.value)
            case "deleted":
                if event.value["productId"] in catalogue.rows and not is_telling:
                    self.checks.find(f"a stream told {event.data!r}, and reads show it")
            case "ready" | "position":
                self.note(f"stream {event.name}")
                self._check_whole(store, event.name)
            case "reset":
                self.note(f"stream reset {event.value['reason']}")

    def _check_order(self, row: dict[str, Any]) -> None:
        """Check that no product goes back within a generation. A restore undoes states."""
        self._marks.forget_what_is_undone()
        product_id, states = row["productId"], self.checks.explain(row)
        label = self._sent.state.get("generation", "")
        if behind := self._marks.step_back(label, product_id, states):
            self.checks.find(f"a stream told {row}, {behind}")
        self._marks.set(label, product_id, states)

    def store_died_degraded(self) -> None:
        """Note that what was told last may be lost, as the store has said (D5)."""
        self._marks.clear()

    def _check_whole(self, store: StoreParts, when: str) -> None:
        rows = shown_rows(store, self.wanted)
        if self._sent.is_ready and self._sent.rows != rows:
            differing = {i for i in rows | self._sent.rows if rows.get(i) != self._sent.rows.get(i)}
            shown = {i: (rows.get(i), self._sent.rows.get(i)) for i in sorted(differing)[:3]}
            self.checks.find(f"{when}: reads and the stream differ: {shown}")

    def check_quiet(self, store: StoreParts) -> None:
        """Check that a reader that takes what it is sent holds what reads show."""
        connection = self._connection
        if connection is not None and self._is_open() and not connection.is_slow:
            self._check_whole(store, "quiet")

    # -- the end ---------------------------------------------------------------------------

    async def settle(self) -> str:
        """Return what a reader lacks in the end, that comes back and has ten seconds; or empty."""
        if self._connection is not None:
            self._connection.hang_up()
        self.connect()
        for _ in range(40):
            await pause(LOOK_SECONDS)
            store = self.store.parts
            is_whole = store is not None and self.held.rows == shown_rows(store, self.wanted)
            if self.held.is_ready and is_whole:
                return ""
            if not self._is_open():
                self.connect()
        return f"a reader holds {len(self.held.rows)} products, ready: {self.held.is_ready}"

    def ended_uncleanly(self) -> bool:
        """Whether a stop of the store cut this stream off in the middle."""
        connection = self._connection
        return (
            connection is not None
            and connection.status == 200
            and not connection.is_slow
            and not connection.ended_cleanly
        )


class StreamWatch:
    """Looks at all readers of a simulation from time to time, and after every step whether reads
    show something else."""

    def __init__(
        self,
        loop: SimulatedLoop,
        store: SimulatedStore,
        readers: list[SimulatedReader],
        find: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._store = store
        self._readers = readers
        self._find = find
        self._seen: tuple[object, ...] = ()
        self._since = 0.0
        self._full_since: float | None = None

    async def run(self) -> None:
        while True:
            await pause(LOOK_SECONDS)
            self.look()

    def step(self) -> None:
        store = self._store.parts
        catalogue = None if store is None else store.writer.catalogue
        if store is None or catalogue is None or store.writer.announcer.is_telling:
            self._seen = ()
            return
        seen = (catalogue, catalogue.sequence, pending_sums(store))
        if self._seen != seen:
            self._seen, self._since = seen, self._loop.time()

    def look(self) -> None:
        self.step()
        store = self._store.parts
        catalogue = None if store is None else store.writer.catalogue
        if store is None or catalogue is None or not self._seen:
            return
        now = self._loop.time()
        self._check_places(store, now)
        if now - self._since >= QUIET_SECONDS:
            for reader in self._readers:
                reader.check_quiet(store)
            self._check_history(store, catalogue)

    def _check_places(self, store: StoreParts, now: float) -> None:
        """Readers that have vanished lose their places."""
        assert store.streams is not None
        vanished = [at for reader in self._readers for at in reader.vanished_at]
        most = len(self._readers) + sum(now - at < PLACE_SECONDS for at in vanished)
        if len(store.streams) <= most:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        elif now - self._full_since > CLOSE_SECONDS:
            self._find(f"{len(store.streams)} streams are open for {most} readers")

    def _check_history(self, store: StoreParts, catalogue: Catalogue) -> None:
        """The newest change of a product is what reads show."""
        assert store.history is not None
        for product_id, body in catalogue.rows.items():
            for entry in store.history.of(product_id, 1).changes:
                shown = (entry.version, entry.available)
                if shown[0] != version_of(body) or b'"available":%d,' % (shown[1] or 0) not in body:
                    self._find(f"the history of {product_id} ends with {shown}, not {body!r}")
