"""What comes again does so at its time, each key in the order of its places, whatever is put back in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from commons_events.transport import RedeliverySchedule


def test_each_comes_at_its_time() -> None:
    schedule = RedeliverySchedule()
    assert not schedule
    assert schedule.next_due is None
    schedule.put_back(7, None, 5.0)
    schedule.put_back(3, b"key", 2.0)
    assert schedule
    assert schedule.next_due == 2.0
    assert schedule.pop_due(1.9) is None
    assert schedule.pop_due(2.0) == 3
    assert schedule.pop_due(4.9) is None
    assert schedule.pop_due(5.0) == 7
    assert not schedule


def test_what_is_due_waits_for_an_earlier_one_of_its_key() -> None:
    schedule = RedeliverySchedule()
    schedule.put_back(1, b"key", 9.0)
    schedule.put_back(2, b"key", 1.0)
    schedule.park(3, b"key")
    assert schedule.pop_due(8.0) is None
    assert [schedule.pop_due(9.0) for _ in range(4)] == [1, 2, 3, None]
    assert schedule.held == {}


KEYS = st.sampled_from([None, b"a", b"b", b"c"])


@given(
    keys=st.lists(KEYS, min_size=1, max_size=12),
    moves=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 5), st.integers(0, 3)), max_size=40),
)
def test_it_delivers_as_the_plain_rule_says(keys: list[bytes | None], moves: list[tuple[int, int, int]]) -> None:
    """The rule: the earliest place of its key that is waiting comes, once it is due, and nothing else does."""
    schedule, waiting, out = RedeliverySchedule(), dict[int, float](), set[int]()
    now = 0.0
    for place, key in enumerate(keys):  # each is delivered for the first time, unless it has to wait
        if key is not None and key in schedule.held:
            schedule.park(place, key)
            waiting[place] = 0.0
        else:
            out.add(place)
            if place % 2:
                out.discard(place)
                schedule.put_back(place, key, now + place % 3)
                waiting[place] = now + place % 3
    for which, wait, passed in [*moves, (0, 0, 100)]:
        if out:
            place = sorted(out)[which % len(out)]
            out.discard(place)
            schedule.put_back(place, keys[place], now + wait)
            waiting[place] = now + wait
        now += passed
        while (popped := schedule.pop_due(now)) is not None:
            assert waiting.pop(popped) <= now
            key = keys[popped]
            assert key is None or all(keys[other] != key or other > popped for other in waiting)
            out.add(popped)
        for place, due in waiting.items():
            key = keys[place]
            first = key is None or not any(keys[other] == key and other < place for other in waiting)
            assert not (first and due <= now), f"{place} was due at {due}, and it is {now}"
    assert not waiting
