"""Up to where a reader on PostgreSQL may go: the rule by itself, against all that transactions can do."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from commons_events.sourcing import StoredEvent, StreamId
from commons_events.sourcing._postgres_read import Sight, Watermark

ONE_IS_OPEN = [
    *[(step, writer) for writer in range(3) for step in ("begin", "take")],
    ("commit", 0), ("commit", 2), ("look", 0), ("hear", 0),
]  # fmt: skip
ONE_HEARS_LATE = [
    *[(step, writer) for writer in range(2) for step in ("begin", "take")],
    ("commit", 1), ("look", 0), ("commit", 0), ("look", 1), ("hear", 1), ("hear", 0),
]  # fmt: skip
ONE_WAITS_FOR_LATER_WRITERS = [
    ("begin", 0), ("look", 0), ("begin", 1), ("begin", 2), ("take", 1), ("take", 2), ("commit", 2), ("commit", 0),
    ("look", 1), ("hear", 1), ("hear", 0), ("look", 1), ("hear", 1),
]  # fmt: skip
THE_SERVER_IS_KILLED = [
    ("begin", 0), ("take", 0), ("look", 0), ("hear", 0), ("kill", 0),
    ("begin", 1), ("take", 1), ("begin", 2), ("take", 2), ("commit", 2), ("look", 0), ("hear", 0),
]  # fmt: skip


THE_LAST_IS_DELETED = [("begin", 0), ("take", 0), ("commit", 0), ("begin", 1), ("look", 0), ("hear", 0), ("delete", 0)]
STEPS = ["begin", "take", "commit", "roll back", "delete", "kill", "look", "hear"]


def stored(position: int) -> StoredEvent:
    return StoredEvent(position, StreamId("s"), 1, str(position), "t", "1.0.0", "json", b"{}")


@example(ONE_IS_OPEN, True)
@example(ONE_IS_OPEN, False)
@example(ONE_HEARS_LATE, False)
@example(ONE_WAITS_FOR_LATER_WRITERS, False)
@example(THE_SERVER_IS_KILLED, True)
@example(THE_SERVER_IS_KILLED, False)
@example(THE_LAST_IS_DELETED, True)
@given(
    st.lists(
        st.tuples(st.sampled_from(STEPS), st.integers(0, 3)),
        max_size=80,
    ),
    st.booleans(),
)
def test_each_reader_gets_each_committed_event_once_and_in_order(steps: list[tuple[str, int]], whole: bool) -> None:
    """Whenever they hear of what they saw, and whatever others have found out meanwhile. In the end none waits."""
    watermark = Watermark()
    writers: dict[int, tuple[str, list[int]]] = {}
    committed: set[int] = set()
    deleted: set[int] = set()
    taken = begun = 0
    after = dict.fromkeys(range(4), 0)
    seen: dict[int, list[int]] = {reader: [] for reader in after}
    looking: dict[int, tuple[Sight, int, frozenset[str], list[StoredEvent]]] = {}

    def look(reader: int) -> None:
        page = [stored(position) for position in sorted(committed) if position > after[reader]]
        highest = max(committed, default=0)
        looking[reader] = watermark.begin(), highest, frozenset(name for name, _ in writers.values()), page

    def hear(reader: int) -> None:
        sight, high, held, page = looking.pop(reader)
        count, edge = watermark.accept(page, watermark.observe(sight, high, held), whole)
        seen[reader].extend(one.position for one in page[:count])
        after[reader] = max(after[reader], edge)

    for step, number in steps:
        if step == "begin" and number not in writers:
            begun += 1
            writers[number] = f"{number}/{begun}", []
        elif step == "take" and number in writers:
            taken += 1
            writers[number][1].append(taken)
        elif step == "commit" and number in writers:
            committed.update(writers.pop(number)[1])
        elif step == "roll back":
            writers.pop(number, None)
        elif step == "kill":  # what nobody has committed may be given out again
            writers.clear()
            taken = max(committed | deleted, default=0)
        elif step == "delete" and committed:
            gone = max(committed)
            committed.remove(gone)
            deleted.add(gone)
        elif step == "look" and number not in looking:
            look(number)
        elif step == "hear" and number in looking:
            hear(number)
    for _, positions in writers.values():
        committed.update(positions)
    writers.clear()
    for reader in after:
        if reader in looking:
            hear(reader)
        look(reader)
        hear(reader)
        assert [position for position in seen[reader] if position not in deleted] == sorted(committed)
        assert after[reader] >= max(committed, default=0)
    assert not watermark.held_back
