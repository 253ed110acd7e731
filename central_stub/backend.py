"""What Central asks of the ledger behind it, whichever that is.

There are two: `local`, in this process and perhaps in a folder, and `postgres`, in a database that
several processes share. Each answer says of which moment of the feed it is.

Errors:
    Unavailable         nothing was read or done; it may work a moment later
    OutcomeUnknown      a write may have been done or not; a repeat with the same key tells
    NotOffered          this ledger cannot do that at all
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from central_stub.catalogue import Row
from central_stub.faults import Fault, SetFault
from central_stub.feed import EventPage
from central_stub.keys import Answer
from central_stub.ledger import Change, Part
from central_stub.rules import Operation
from central_stub.switches import Switches
from central_stub.wire import Route


class Unavailable(Exception):
    """The ledger cannot be reached or refuses writes; nothing was done."""


class OutcomeUnknown(Exception):
    """The connection was lost while a write was under way."""


class NotOffered(Exception):
    """The message says what this ledger does not do."""


class NotInMemory(Exception):
    """What a held poll is answered with has to be read first."""


class Moment(NamedTuple):
    """Where the feed was when an answer was made, and how many products there were."""

    generation: str
    head: int
    products: int


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order. `more`: there are others after them."""

    rows: list[Row]
    more: bool
    moment: Moment


@dataclass(frozen=True, slots=True)
class Digest:
    """Of each bucket the number of rows and the sum of their hashes, in hex."""

    rows: list[int]
    sums: list[str]
    moment: Moment


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A page of the feed. `head`: the last event's offset."""

    page: EventPage
    generation: str
    head: int


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to some operations, in their order."""

    answers: list[Answer]
    generation: str


class Backend(Protocol):
    """A ledger of one tenant, with its switches and faults. Whatever asks it may raise Unavailable.

    `changed` is set by who holds polls, and called when they may have an answer. `revision` changes
    with everything that such an answer shows.
    """

    changed: Callable[[], None]

    @property
    def switches(self) -> Switches: ...
    @property
    def generation(self) -> str: ...
    @property
    def head(self) -> int:
        """The last offset, as far as is known without asking anybody."""
        ...

    @property
    def revision(self) -> int: ...

    # Its life

    async def start(self) -> None: ...
    async def prepare_digest(self) -> None:
        """Do ahead what makes a digest take long."""

    async def synced(self) -> None:
        """Wait until all is durable that an answer may show. StorageError."""

    def settle_no_more(self) -> None:
        """Publish no late events any more: it is about to be closed."""

    async def close(self) -> None: ...
    def abandon(self) -> None:
        """Leave everything as the end of the process does."""

    # Reading

    async def moment(self) -> Moment: ...
    async def product(self, product_id: str) -> tuple[Row | None, Moment]: ...
    async def page(self, offset: int, limit: int) -> Page: ...
    async def page_after(self, product_id: str | None, limit: int) -> Page: ...
    async def everything(self) -> Page: ...
    async def bucket(self, bucket: int, buckets: int) -> Page: ...
    async def digest(self, buckets: int) -> Digest: ...
    async def events(self, offset: int, limit: int, now: float) -> FeedPage:
        """Return published events from `offset` on. PositionGone if the log holds them no more."""
        ...

    def news(self, offset: int, limit: int, now: float, generation: str) -> FeedPage | None:
        """Return what a poll can be answered with at once that has been held since `generation`, or
        None while there is nothing new. PositionGone, NotInMemory: ask `events`."""
        ...

    # Writing

    async def write(self, operations: Sequence[Operation], now: float) -> Answers: ...

    # Administration

    async def faults(self) -> list[SetFault]: ...
    async def add_fault(self, fault: Fault) -> SetFault: ...
    async def clear_faults(self, number: int | None = None) -> int: ...
    async def strike(self, route: Route) -> list[Fault]:
        """Return the faults that strike a request of this kind, and count them."""
        ...

    async def switch(self, switches: Switches) -> None: ...
    async def forget_log(self) -> None: ...
    async def forget_keys(self) -> None: ...
    async def begin_generation(self, name: str) -> None: ...
    async def lose_next(self, count: int) -> None: ...
    async def lie(self, product_id: str, attributes: Row | None) -> None: ...
    async def crash(self, loses: Part, count: int) -> None: ...
    async def backup(self) -> dict[str, Any]: ...
    async def restore(self, backup: Change, generation: str) -> None: ...
    async def wipe(self, generation: str) -> None: ...


def nothing_changed() -> None:
    """What `changed` is before somebody holds polls."""
