"""How `make test` spreads the tests over worker processes: those that wait for servers beside those that compute.

A test with a real server mostly waits, so that one more worker than there are processors keeps them all at work, as
long as not every worker waits. One worker therefore takes the computing tests first and the others the waiting ones;
whoever has run out of its own kind helps with the other. Each worker has servers of its own: a test may kill them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]
from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

WAITING = re.compile(r"packages/[^/]+/tests/(contract|integration)/")
LONG = re.compile(r"tests/packaging/|packages/[^/]+/tests/contract/")
"""What takes minutes; begun last, it would keep one worker busy while the others have nothing left to do."""
MOST = 8
"""Processors beyond which more workers would only mean more servers."""


def workers(config: pytest.Config) -> int:
    """How many processes run the tests: none but this one where somebody wants to see what a test prints."""
    if config.option.capture == "no":
        return 0
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, MOST) + 1


def scope(nodeid: str) -> str:
    """What one worker runs at a stretch: a file, or a class of a contract, each of which takes minutes."""
    file, _, test = nodeid.partition("::")
    cls, inside, _ = test.partition("::")
    return f"{file}::{cls}" if inside and "/tests/contract/" in file else file


def waits(name: str) -> bool:
    """Whether the scope's tests mostly wait for a server."""
    return WAITING.match(name) is not None


def first(names: Iterable[str], waiting: bool) -> str:
    """Which scope comes next on the lane of those that wait, or of those that compute: long ones before short ones."""
    return min(names, key=lambda name: (waits(name) is not waiting, LONG.match(name) is None))


class Lanes(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives scopes to workers by their lanes."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        computes = node is self.nodes[0]
        self.workqueue.move_to_end(first(self.workqueue, waiting=not computes), last=False)
        super()._assign_work_unit(node)
