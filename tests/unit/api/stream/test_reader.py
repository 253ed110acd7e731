"""A reader's place: what it is told is what reads show, however it is led through."""

from __future__ import annotations

import random

import pytest

from store_cache.api.stream import feed, reader
from store_cache.api.stream.feed import ChangeFeed
from store_cache.api.stream.reader import Reader
from store_cache.api.stream.state import StreamState
from store_cache.catalogue import differences
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.observer import ChangeSource, Origin
from store_cache.model.change import Change
from store_cache.model.position import Position
from tests.harness.cache import row
from tests.harness.fake_store import FakeStore
from tests.harness.streams import EventParser, Shelf

NAMES = [f"P-{number:02}" for number in range(40)]


class Setting:
    """A store without a network, and readers of its changes."""

    def __init__(self, history: int = 1_000) -> None:
        self.fake = FakeStore()
        parts = self.fake.parts
        assert parts.streams is not None
        self.state: StreamState = parts.streams.state
        self.state.update()
        self.feed = ChangeFeed(self.fake, size=history, random=lambda: 0.5)  # type: ignore[arg-type]
        self.fake.announcer.observers = (self.feed,)

    @property
    def rows(self) -> dict[str, bytes]:
        return self.fake.held.rows

    def change(self, product_id: str, body: bytes | None) -> None:
        change = Change("a test", rows={product_id: body})
        self.fake.announcer.apply(self.fake.held, change, Origin(ChangeSource.EVENT))

    def install(self, new: Catalogue, generation: str = "g-1") -> None:
        """Show the catalogue of a full sync, whose differences are still to be told."""
        while self.fake.announcer.is_telling:
            self.fake.announcer.tell_part()
        old, self.fake.catalogue = self.fake.held, new
        self.fake.position = Position(generation, 1046)
        self.fake.announcer.announce_replaced(old, new)


class Client:
    """What a client holds that takes a part now and then, and checks what it is told."""

    def __init__(self, setting: Setting, wanted: list[str] | None, *, from_start: bool) -> None:
        self.shelf, self.parser = Shelf(), EventParser()
        self.told: list[str] = []
        self._setting = setting
        self._wanted = wanted
        self._reader = Reader(setting.feed, setting.state, wanted)
        self._apply(self._reader.begin(last_event_id=None, from_start=from_start))

    def take(self) -> None:
        self._apply(self._reader.take())

    def position(self) -> None:
        self._apply(self._reader.position())

    def take_all(self) -> None:
        while not self._reader.is_current:
            self.take()

    @property
    def rows(self) -> dict[str, bytes]:
        rows = self._setting.rows
        return {i: rows[i] for i in rows if self._wanted is None or i in self._wanted}

    def _apply(self, data: bytes) -> None:
        events = self.parser.feed(data)
        for event in events:
            self.shelf.apply(event)
            self.told.append(event.name)
        if events and events[-1].name in ("ready", "position"):
            assert self.shelf.rows == self.rows


def catalogue_of(rng: random.Random) -> Catalogue:
    made = Catalogue()
    made.fill((name, row(name, rng.randrange(3)).body) for name in rng.sample(NAMES, 25))
    return made


def test_ready_waits_for_the_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """[L1] A reader that began before a full sync is told ready once it holds what that changed."""
    monkeypatch.setattr(reader, "_PART_PRODUCTS", 5)
    monkeypatch.setattr(differences, "PART_PRODUCTS", 5)
    rng, setting = random.Random(7), Setting()
    setting.fake.catalogue = catalogue_of(rng)
    client = Client(setting, None, from_start=True)
    for _ in range(4):
        client.take()
    setting.install(catalogue_of(rng))
    while setting.fake.announcer.is_telling:
        client.take()
        client.position()
        assert not client.shelf.is_ready
        setting.fake.announcer.tell_part()
    client.take_all()
    assert client.shelf.is_ready
    assert client.shelf.rows == setting.rows


@pytest.mark.parametrize("seed", range(40))
def test_readers_hold_what_reads_show(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """[L1, L2] Through changes, full syncs and replaced Centrals, fast and slow readers, of all
    products and of some, with a history that may be too short."""
    monkeypatch.setattr(reader, "_PART_PRODUCTS", 4)
    monkeypatch.setattr(reader, "PART_BYTES", 300)
    monkeypatch.setattr(feed, "PART_BYTES", 300)
    monkeypatch.setattr(differences, "PART_PRODUCTS", 6)
    rng = random.Random(seed)
    setting = Setting(history=rng.choice((20, 1_000)))
    setting.fake.catalogue = catalogue_of(rng)
    clients = [
        Client(setting, wanted, from_start=True)
        for wanted in (None, None, rng.sample(NAMES, 10), ["P-00"])
    ]
    for _ in range(400):
        name, kind = rng.choice(NAMES), rng.random()
        if kind < 0.6:
            gone = rng.random() < 0.3
            setting.change(name, None if gone else row(name, rng.randrange(3)).body)
        elif kind < 0.63:
            setting.install(catalogue_of(rng), rng.choice(("g-1", "g-1", "g-2")))
        else:
            setting.fake.announcer.tell_part()
        for slowness, client in enumerate(clients):
            if rng.random() < 0.8 ** (3 * slowness):
                client.take()
            if rng.random() < 0.05:
                client.position()
    while setting.fake.announcer.is_telling:
        setting.fake.announcer.tell_part()
    for client in clients:
        client.take_all()
        client.position()
        assert client.shelf.is_ready
        assert client.shelf.rows == client.rows
        assert client.told[-1] == "position"
