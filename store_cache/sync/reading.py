"""What a full sync has read, and the step that it is in: the parts of `states.FullSync`.

All are frozen. What follows from what is decided in `full_sync`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from store_cache.model.pages import PageRequest
from store_cache.model.position import Position
from store_cache.sync.cursor import Cursor

# -- steps -------------------------------------------------------------------------------------


class FullSyncStep(StrEnum):
    """The names of the steps. The status shows them."""

    FIRST_PAGE = "first page"
    HEAD = "learning the head"
    PAGES = "pages"
    CATCHING_UP = "catching up"
    INSTALLING = "placing"


@dataclass(frozen=True, slots=True)
class FirstPage:
    """The first page, which names the head of the feed."""


@dataclass(frozen=True, slots=True)
class LearningHead:
    """The end of the feed, as far as `Reading.head` knows it. `next_page`: the one after the first,
    for pages alone."""

    next_page: PageRequest | None


@dataclass(frozen=True, slots=True)
class ReadingPages:
    """Pages, and the feed alongside. `next_page`: None before the first one, if the head had to be
    learned. `not_before`: when a page may be asked for again, after a limit."""

    next_page: PageRequest | None
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class CatchingUp:
    """The event before the position (E4), and the feed, until nothing is left."""


@dataclass(frozen=True, slots=True)
class Installing:
    """The replica is being judged, written and installed."""


Step = FirstPage | LearningHead | ReadingPages | CatchingUp | Installing

STEP_NAMES: dict[type[Step], FullSyncStep] = {
    FirstPage: FullSyncStep.FIRST_PAGE,
    LearningHead: FullSyncStep.HEAD,
    ReadingPages: FullSyncStep.PAGES,
    CatchingUp: FullSyncStep.CATCHING_UP,
    Installing: FullSyncStep.INSTALLING,
}


# -- the feed alongside ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Following:
    """The feed is followed alongside the pages.

    `cursor`: where the replica stands; None until the head is known. `next_cursor`: where it stands
    once the batch in flight is applied. `has_more`: read the feed before the next page. `is_open`:
    nothing was followed yet, so the log may begin later than asked. `asked_at`: when the last
    answer was asked for, `caught_up_at`: the last one that left nothing. `not_before`: when the
    feed may be asked again, after a limit or a failure.
    """

    cursor: Cursor | None = None
    next_cursor: Cursor | None = None
    has_more: bool = False
    is_open: bool = True
    asked_at: float | None = None
    caught_up_at: float | None = None
    not_before: float = 0.0

    def paused(self) -> Following:
        """Return this after a pause, in which the feed may have been replaced."""
        return replace(self, cursor=self.cursor and self.cursor.paused())


@dataclass(frozen=True, slots=True)
class PagesAlone:
    """The feed cannot be read, and pages alone make the replica, which stands at `position`."""

    position: Position


# -- the whole ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read since the replica was begun.

    `same_generation`: versions held still count (V3). `restarts`: how often the replica was begun
    again because the feed was lost. `must_reread_pages`: Central may have been restored before the
    feed was seen. `generation`: as pages name it. `head`: the end of the feed as the first page was
    read. `page_failures`, `feed_failures`: in a row. `has_page_failed`: it is not the feed alone
    that fails. `follow_up_reason`: why another full sync has to follow this one.
    """

    same_generation: bool = True
    restarts: int = 0
    must_reread_pages: bool = False
    generation: str | None = None
    head: int | None = None
    page_failures: int = 0
    has_page_failed: bool = False
    feed_failures: int = 0
    follow_up_reason: str = ""
    feed: Following | PagesAlone = field(default_factory=Following)
