"""`OffsetTracker` against a model of it: a set of finished offsets."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from commons_events.transport import OffsetTracker


class Tracking(RuleBasedStateMachine):
    """Finishes offsets in any order, and compares with the plain definition."""

    @initialize(start=st.integers(0, 5) | st.integers(2**40, 2**40 + 3))
    def begin(self, start: int) -> None:
        self.start = start
        self.tracker = OffsetTracker(start)
        self.finished: set[int] = set()

    def prefix(self) -> int:
        offset = self.start
        while offset in self.finished:
            offset += 1
        return offset

    @rule(ahead=st.integers(0, 12))
    def finish(self, ahead: int) -> None:
        offset = self.start + ahead
        before = self.prefix()
        self.finished.add(offset)
        assert self.tracker.finish(offset) is (self.prefix() != before)

    @rule(behind=st.integers(1, 5))
    def finish_what_was_before_the_start(self, behind: int) -> None:
        assert self.tracker.finish(self.start - behind) is False

    @rule()
    def finish_the_next(self) -> None:
        self.finish(self.prefix() - self.start)

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "tracker"):
            return
        assert self.tracker.committed == self.prefix()
        assert self.tracker.held_back == len([offset for offset in self.finished if offset > self.prefix()])
        for offset in range(self.start, self.start + 14):
            assert self.tracker.is_finished(offset) is (offset in self.finished)
        assert self.tracker.is_finished(self.start - 1)


TestTracking = Tracking.TestCase
TestTracking.settings = settings(max_examples=40, stateful_step_count=30)


@given(st.permutations(range(9)))
def test_any_order_ends_with_everything_committed_and_nothing_held(order: list[int]) -> None:
    tracker = OffsetTracker()
    for offset in order:
        tracker.finish(offset)
    assert (tracker.committed, tracker.held_back) == (9, 0)


def test_a_gap_holds_back_all_that_is_behind_it() -> None:
    tracker = OffsetTracker(10)
    assert [tracker.finish(offset) for offset in (11, 12, 14)] == [False, False, False]
    assert (tracker.committed, tracker.held_back) == (10, 3)
    assert tracker.finish(10) is True
    assert (tracker.committed, tracker.held_back) == (13, 1)
    assert not tracker.is_finished(13)
    assert tracker.finish(10) is False
    assert tracker.finish(13) is True
    assert (tracker.committed, tracker.held_back) == (15, 0)


def test_a_long_run_behind_a_gap_is_taken_over_at_once() -> None:
    tracker = OffsetTracker()
    for offset in range(1, 50_000):
        tracker.finish(offset)
    assert tracker.finish(0) is True
    assert (tracker.committed, tracker.held_back) == (50_000, 0)
