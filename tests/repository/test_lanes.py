"""`make test` hands out every test once, those that wait for servers beside those that compute."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

from tools import lanes

UNIT = "packages/commons-events-x/tests/unit/test_a.py"
OTHER_UNIT = "packages/commons-events-x/tests/unit/test_b.py"
CONTRACT = "packages/commons-events-x/tests/contract/test_c.py"
PACKAGING = "tests/packaging/test_p.py"
INTEGRATION = "packages/commons-events-x/tests/integration/test_i.py"
TESTS = [
    *(f"{CONTRACT}::TestOne::test_{number}" for number in range(4)),
    *(f"{CONTRACT}::TestOther::test_{number}[{UNIT}::x]" for number in range(4)),
    *(f"{INTEGRATION}::TestIt::test_{number}" for number in range(4)),
    *(f"{UNIT}::TestIt::test_{number}" for number in range(4)),
    *(f"{OTHER_UNIT}::test_{number}" for number in range(4)),
    *(f"{PACKAGING}::test_{number}" for number in range(3)),
]


class Worker:
    """What the scheduler sees of a worker."""

    def __init__(self) -> None:
        self.gateway = SimpleNamespace(id="gw")
        self.given: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given += indices

    def shutdown(self) -> None:
        self.shutting_down = True

    @property
    def scopes(self) -> list[str]:
        """The scopes that it was given, each at a stretch."""
        return list(dict.fromkeys(lanes.scope(TESTS[index]) for index in self.given))


@pytest.fixture
def workers(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> list[Worker]:
    """Two workers that have run all tests."""
    monkeypatch.setattr(pytestconfig.option, "tx", ["popen", "popen"])
    scheduler = lanes.Lanes(pytestconfig)
    found = [Worker(), Worker()]
    nodes = [cast("WorkerController", worker) for worker in found]
    for node in nodes:
        scheduler.add_node(node)
        scheduler.add_node_collection(node, TESTS)
    scheduler.schedule()
    done = [0, 0]
    while any(len(worker.given) > done[place] for place, worker in enumerate(found)):
        for place, worker in enumerate(found):
            if len(worker.given) > done[place]:
                scheduler.mark_test_complete(nodes[place], worker.given[done[place]])
                done[place] += 1
    assert scheduler.tests_finished
    return found


def test_every_test_is_run_once(workers: list[Worker]) -> None:
    assert sorted(index for worker in workers for index in worker.given) == list(range(len(TESTS)))


def test_one_computes_while_the_other_waits(workers: list[Worker]) -> None:
    computing, waiting = workers
    assert computing.scopes[:3] == [PACKAGING, UNIT, OTHER_UNIT]
    assert waiting.scopes[:2] == [f"{CONTRACT}::TestOne", f"{CONTRACT}::TestOther"]
    assert set(computing.scopes + waiting.scopes) == {lanes.scope(test) for test in TESTS}


@pytest.mark.parametrize(("capture", "several"), [("no", False), ("fd", True)])
def test_who_wants_to_see_what_is_printed_has_one_process(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch, capture: Any, several: bool
) -> None:
    monkeypatch.setattr(pytestconfig.option, "capture", capture)
    assert (lanes.workers(pytestconfig) > 1) is several
