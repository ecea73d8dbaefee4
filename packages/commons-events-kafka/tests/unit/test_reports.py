"""Which way of a report is taken."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from commons_events.kafka._reports import Quicker


def looked_for(quicker: Quicker, looking: float, waiting: float, count: int, late: frozenset[int] = frozenset()) -> int:
    """Send ``count`` messages, which take so long each way and a hundred times as long at the places ``late``."""
    looks = 0
    for place in range(count):
        way = quicker.looks()
        looks += way
        quicker.took(way, (looking if way else waiting) * (100 if place in late else 1))
    return looks


@settings(max_examples=30)
@given(st.floats(1e-5, 1), st.floats(1.5, 3), st.frozensets(st.integers(0, 399), max_size=20))
def test_the_quicker_way_is_taken_soon_and_the_other_one_now_and_then(
    quick: float, times: float, late: frozenset[int]
) -> None:
    quicker = Quicker()
    looked_for(quicker, quick, quick * times, 400, late)
    assert 80 <= looked_for(quicker, quick, quick * times, 100) < 100
    looked_for(quicker, quick * times, quick, 800, late)  # the machine has no core to spare any more
    assert 0 < looked_for(quicker, quick * times, quick, 100) <= 20


def test_looking_is_left_where_it_gains_next_to_nothing() -> None:
    quicker = Quicker()
    looked_for(quicker, 0.0050, 0.0051, 400)
    assert looked_for(quicker, 0.0050, 0.0051, 100) <= 40
