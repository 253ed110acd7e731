"""The fixtures `central` and `store`, for tests of software that talks to a store.

pytest finds this module by its entry point. It is the one module that uses both programs, and it
imports them when a test asks for a fixture, so that other test runs start as fast as without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from central_stub.testing import TestCentral
    from store_cache.testing import TestStore


@pytest.fixture
def central_products() -> Sequence[dict[str, Any]]:
    """The products that `central` begins with. Override it in your suite."""
    return ()


@pytest.fixture
def central_options() -> dict[str, Any]:
    """The other arguments of `TestCentral`, such as `like` and switches. Override it."""
    return {}


@pytest.fixture
def store_settings() -> dict[str, Any]:
    """The settings of `store` that differ from those of a `TestStore`. Override it."""
    return {}


@pytest.fixture
def central(
    central_products: Sequence[dict[str, Any]], central_options: dict[str, Any]
) -> Iterator[TestCentral]:
    """A Central of its own for each test."""
    from central_stub.testing import TestCentral  # noqa: PLC0415 - see above

    with TestCentral(central_products, **central_options) as central:
        yield central


@pytest.fixture
def store(central: TestCentral, store_settings: dict[str, Any]) -> Iterator[TestStore]:
    """A store of its own for each test, in sync with `central`."""
    from store_cache.testing import TestStore  # noqa: PLC0415 - see above

    with TestStore(central, **store_settings) as store:
        yield store
