"""What the router's tests share: a harness, and events that are there for the whole module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from commons_events.testing import EventTestHarness


@pytest.fixture
def harness() -> Iterator[EventTestHarness]:
    with EventTestHarness() as made:
        yield made
