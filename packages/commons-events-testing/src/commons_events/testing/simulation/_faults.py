"""What goes wrong, and when: a schedule is a short list that Hypothesis makes, and makes shorter."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import NamedTuple

from hypothesis import strategies as st

__all__ = ["Fault", "FaultKind", "schedules"]


class FaultKind(StrEnum):
    """Each happens to the worker whose turn it is."""

    CRASH = "crash"
    """It dies between two steps, as by kill -9; the broker notices later, and it is started again."""
    STOP = "stop"
    """It is cancelled, as by SIGTERM, and started again once it has ended."""
    FREEZE = "freeze"
    """It takes no step for longer than the broker waits for it, and then goes on."""
    DISCONNECT = "disconnect"
    """The broker loses it: what it has out goes to others; its next `receive` says so."""
    ACK_FAILS = "ack fails"
    """Its next settlement raises ConnectionLostError, and the broker does not have it."""
    ACK_LOST = "ack lost"
    """Its next acknowledgement gets lost on the way: the message comes again."""
    PUBLISH_FAILS = "publish fails"
    """Its next publish raises PublishTimeoutError, and the broker does not have the messages."""
    PUBLISH_UNCONFIRMED = "publish unconfirmed"
    """Its next publish raises PublishTimeoutError, and the broker has the messages."""
    JOIN = "join"
    """Another worker joins for some seconds, so that partitions move there and back."""


class Fault(NamedTuple):
    """One thing that goes wrong."""

    step: int
    """Before which step, counted over all workers."""
    kind: FaultKind


def schedules(
    steps: int, kinds: Collection[FaultKind] = tuple(FaultKind), max_faults: int = 4
) -> st.SearchStrategy[list[Fault]]:
    """Schedules of up to ``max_faults`` faults within the first ``steps`` steps, in their order."""
    fault = st.builds(Fault, st.integers(0, max(steps - 1, 0)), st.sampled_from(sorted(kinds)))
    return st.lists(fault, min_size=1, max_size=max_faults).map(sorted)
