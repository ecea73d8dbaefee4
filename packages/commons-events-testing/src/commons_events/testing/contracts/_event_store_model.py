"""Any history against a model in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commons_events.errors import (
    VersionConflictError,
)
from commons_events.testing.contracts._event_store_case import Counted, EventStoreCase, counted, ids, listed, sourcing

__all__ = ["ModelTests"]


class ModelTests(EventStoreCase, contract=True):
    """Random histories."""

    async def test_any_history_is_as_the_model_says(self) -> None:
        """Random appends, with random expectations and repeats, against lists in memory."""
        s, store = sourcing(), await self.store(page_size=7)
        loop = asyncio.get_running_loop()
        model: dict[str, list[str]] = {}
        log: list[str] = []
        pool = counted(12)
        histories = 0
        steps = st.lists(
            st.tuples(
                st.sampled_from("abc"),
                st.sampled_from(["any", "none", "exists", "right", "wrong", "earlier"]),
                st.lists(st.sampled_from(pool), max_size=4),
                st.booleans(),
            ),
            max_size=12,
        )

        async def play(history: list[tuple[str, str, list[Counted], bool]]) -> None:
            nonlocal histories
            histories += 1
            for name, word, chosen, fresh in history:
                stream = f"{histories}-{name}"
                events = [Counted(number=event.number) for event in chosen] if fresh else chosen
                present = model.setdefault(stream, [])
                version = len(present)
                expected = {
                    "any": s.ANY, "none": s.NO_STREAM, "exists": s.STREAM_EXISTS, "right": version,
                    "wrong": version + 2, "earlier": max(version - 2, 0),
                }[word]  # fmt: skip
                outcome = judge(s, present, ids(events), expected)
                if outcome == "conflict":
                    with pytest.raises(VersionConflictError) as caught:
                        await store.append(stream, events, expected=expected)
                    assert caught.value.actual == version
                    continue
                result = await store.append(stream, events, expected=expected)
                assert result.stored is (outcome == "store" and bool(events))
                if outcome == "store":
                    present += ids(events)
                    log.extend(ids(events))
                assert result.version == len(present)
            for stream in {f"{histories}-{step[0]}" for step in history}:
                stored = await listed(store.read_stream(stream))
                assert ids(stored) == model[stream]
                assert [one.aggregate_version for one in stored] == list(range(1, len(stored) + 1))

        @settings(
            max_examples=self.max_examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(steps)
        def run(history: list[tuple[str, str, list[Counted], bool]]) -> None:
            asyncio.run_coroutine_threadsafe(play(history), loop).result()

        await asyncio.to_thread(run)
        stored = await listed(store.read_all())
        assert ids(stored) == log
        assert ids(await listed(store.read_all(backwards=True))) == log[::-1]


def judge(s: Any, present: list[str], new: list[str], expected: Any) -> str:
    """What has to become of an append: ``store``, ``repeat`` or ``conflict``."""
    version, count = len(present), len(new)
    exact = {s.NO_STREAM: 0}.get(expected, expected)
    if isinstance(exact, int):
        if exact == version:
            return "store"
        repeat = exact < version and count and present[exact : exact + count] == new
        return "repeat" if repeat else "conflict"
    if count and set(new) & set(present):
        there = any(present[start : start + count] == new for start in range(version))
        return "repeat" if there else "conflict"
    return "conflict" if exact is s.STREAM_EXISTS and not version else "store"
