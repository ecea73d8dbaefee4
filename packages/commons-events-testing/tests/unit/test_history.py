"""A history says what a run under faults lost, repeated or mixed up."""

from __future__ import annotations

import pytest

from commons_events.testing import History

SENT = [("a", 1), ("b", 1), ("a", 2)]


def test_what_came_again_later_is_fine_where_it_is_allowed() -> None:
    history = History(SENT, [("a", 1), ("a", 2), ("b", 1), ("a", 1)])
    history.check()
    with pytest.raises(AssertionError, match="1 messages were handled twice"):
        history.check(duplicates=False)


def test_what_is_lost_is_named() -> None:
    history = History(SENT, [("a", 1), ("a", 2)])
    assert history.missing() == {("b", 1)}
    with pytest.raises(AssertionError, match=r"1 confirmed messages were never handled, such as \[\('b', 1\)\]"):
        history.check()


def test_the_order_of_a_key_is_that_of_its_first_handling() -> None:
    history = History(SENT, [("b", 1), ("a", 2), ("a", 1)])
    history.check(ordered=False)
    with pytest.raises(AssertionError, match="key 'a' was handled out of order"):
        history.check()
