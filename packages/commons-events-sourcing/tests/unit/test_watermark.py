"""Up to where a reader on PostgreSQL may go: the rule by itself, against all that transactions can do."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from commons_events.sourcing import StoredEvent, StreamId
from commons_events.sourcing._postgres_read import Watermark

ONE_IS_OPEN = [
    *[(step, writer) for writer in range(3) for step in ("begin", "take")],
    ("commit", 0), ("commit", 2), ("read", 0),
]  # fmt: skip


def stored(position: int) -> StoredEvent:
    return StoredEvent(position, StreamId("s"), 1, str(position), "t", "1.0.0", "json", b"{}")


@example(ONE_IS_OPEN, True)
@example(ONE_IS_OPEN, False)
@given(
    st.lists(
        st.tuples(st.sampled_from(["begin", "take", "commit", "roll back", "read"]), st.integers(0, 4)), max_size=60
    ),
    st.booleans(),
)
def test_a_reader_gets_each_committed_event_once_and_in_order(steps: list[tuple[str, int]], whole: bool) -> None:
    watermark = Watermark()
    writers: dict[int, tuple[str, list[int]]] = {}
    committed: set[int] = set()
    taken = begun = after = 0
    seen: list[int] = []

    def read() -> None:
        nonlocal after
        watermark.observe(taken, frozenset(name for name, _ in writers.values()))
        page = [stored(position) for position in sorted(committed) if position > after]
        count = watermark.accept(after + 1, page, whole)
        seen.extend(one.position for one in page[:count])
        after = max(after, watermark.settled)

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
        elif step == "read":
            read()
    for _, positions in writers.values():
        committed.update(positions)
    writers.clear()
    read()
    assert seen == sorted(committed)
