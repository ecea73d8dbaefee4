"""Tests of properties hold on a slow machine."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=3)
@given(st.just(0.3))
def test_an_example_may_take_longer_than_hypothesis_lets_it(seconds: float) -> None:
    time.sleep(seconds)
