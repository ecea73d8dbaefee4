"""No subclass of a contract gets rid of a test unseen."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from commons_events.testing.contracts import (
    ConsumerContract,
    Contract,
    ContractError,
    ProducerContract,
    SerializerContract,
    TransportContract,
)

pytest_plugins = ["pytester"]

HEAD = """
import pytest
from commons_events.testing.contracts import Contract

class SmallContract(Contract, contract=True):
    async def test_one(self): pass
    async def test_two(self): assert self.works()
    def works(self): return True
"""

DROPPED = {
    "a plain pass": "async def test_two(self): pass",
    "None": "test_two = None",
    "something else": "test_two = 7",
    "a skip without a reason": "@pytest.mark.skip\n    async def test_two(self): pass",
    "an xfail without a reason": "@pytest.mark.xfail\n    async def test_two(self): pass",
    "an empty reason": "@pytest.mark.xfail(reason=' ')\n    async def test_two(self): pass",
    "an unrelated mark": "@pytest.mark.filterwarnings('error')\n    async def test_two(self): pass",
    "the check itself": "async def test_contract_is_complete(self): pass",
}
KEPT = {
    "as it is": "pass",
    "an xfail": "@pytest.mark.xfail(reason='issue 1')\n    async def test_two(self): assert False",
    "a skip": "@pytest.mark.skip(reason='issue 1')\n    async def test_two(self): pass",
    "a skip, short": "@pytest.mark.skip('issue 1')\n    async def test_two(self): pass",
    "a skipif": "@pytest.mark.skipif(True, reason='issue 1')\n    async def test_two(self): pass",
    "tests of its own": "async def test_three(self): pass",
}
INI = ["-p", "no:cacheprovider", "-o", "asyncio_mode=strict", "-o", "asyncio_default_fixture_loop_scope=function"]


def _plugin() -> list[str]:
    """Where the package is not installed, its entry point does not load the plugin."""
    installed = entry_points(group="pytest11", name="commons_events")
    return [] if installed else ["-p", "commons_events.testing.pytest_plugin"]


@pytest.mark.parametrize("body", DROPPED.values(), ids=DROPPED)
def test_a_dropped_test_is_noticed(body: str) -> None:
    names: dict[str, object] = {}
    exec(HEAD, names)
    with pytest.raises(ContractError, match="does not take over its whole contract"):
        exec(f"class TestIt(SmallContract):\n    {body}\n", names)


@pytest.mark.parametrize("body", KEPT.values(), ids=KEPT)
def test_a_reason_is_enough(body: str) -> None:
    names: dict[str, object] = {}
    exec(HEAD, names)
    exec(f"class TestIt(SmallContract):\n    {body}\n", names)


def test_a_mixin_cannot_drop_one_either() -> None:
    class Quiet:
        async def test_keys_keep_their_order(self) -> None:
            pass

    with pytest.raises(ContractError, match="test_keys_keep_their_order"):
        type("TestIt", (Quiet, TransportContract), {})


@pytest.mark.parametrize("contract", [TransportContract, ProducerContract, ConsumerContract, SerializerContract])
def test_every_contract_test_says_what_it_is_about(contract: type[Contract]) -> None:
    tests = [name for name in dir(contract) if name.startswith("test_")]
    assert len(tests) >= 10
    assert "test_contract_is_complete" in tests
    assert all(getattr(contract, name).__doc__ for name in tests)


def _run(pytester: pytest.Pytester, code: str) -> pytest.RunResult:
    pytester.makepyfile(HEAD + code)
    return pytester.runpytest_inprocess(*INI, *_plugin())


def test_a_sound_subclass_passes(pytester: pytest.Pytester) -> None:
    _run(pytester, "class TestIt(SmallContract): pass").assert_outcomes(passed=3)


def test_a_test_dropped_later_is_noticed(pytester: pytest.Pytester) -> None:
    code = "class TestIt(SmallContract): pass\nasync def nothing(self): pass\nTestIt.test_two = nothing\n"
    result = _run(pytester, code)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_two is overridden without*"])


@pytest.mark.parametrize("mark", ["skip", "xfail", "skipif(True)"])
@pytest.mark.parametrize("place", ["class", "module"])
def test_marking_away_without_a_reason_is_noticed(pytester: pytest.Pytester, mark: str, place: str) -> None:
    code = "class TestIt(SmallContract): pass\n"
    code = f"@pytest.mark.{mark}\n{code}" if place == "class" else f"{code}pytestmark = pytest.mark.{mark}\n"
    result = _run(pytester, code)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*without a reason*"])


def test_workers_say_what_is_marked_away_without_a_reason(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist", reason="needs worker processes (pip install pytest-xdist)")
    pytester.makepyfile(HEAD + "@pytest.mark.skip\nclass TestIt(SmallContract): pass\ndef test_other(): pass")
    result = pytester.runpytest_subprocess(*INI, *_plugin(), "-n1")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*TestIt does not take over its whole contract:", "*is marked skip without a reason"])


def test_marking_in_place_is_noticed(pytester: pytest.Pytester) -> None:
    code = "class TestIt(SmallContract):\n    test_two = pytest.mark.skip(reason='x')(SmallContract.test_two)\n"
    result = _run(pytester, code)
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*test_two was marked in place*"])


def test_a_hanging_test_fails(pytester: pytest.Pytester) -> None:
    code = """
import asyncio
class HangingContract(Contract, contract=True):
    hang_after = 0.05
    async def test_hangs(self): await asyncio.Event().wait()
    async def clean_up(self): print("tidied up")
class TestIt(HangingContract): pass
"""
    result = _run(pytester, code)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*test_hangs hangs*"])
    result.stdout.fnmatch_lines(["*tidied up*"])


def test_what_is_not_claimed_is_reported(pytester: pytest.Pytester) -> None:
    code = """
from dataclasses import replace
from commons_events.memory import MemoryTransport
from commons_events.testing.contracts import requires
class ClaimContract(Contract, contract=True):
    async def test_seeks(self): requires(replace(MemoryTransport().capabilities, seek=False), "pause", "seek")
    async def test_orders(self): requires(replace(MemoryTransport().capabilities, ordering="none"), "ordering")
class TestIt(ClaimContract): pass
"""
    result = _run(pytester, code)
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(
        ["*contracts: what is not claimed*", "*TestIt: capability ordering is not claimed (1 test skipped)"]
    )


@pytest.mark.parametrize(
    ("refusal", "status", "said"),
    [
        ("pytest.UsageError('set SHOP_DATABASE')", pytest.ExitCode.USAGE_ERROR, "ERROR: set SHOP_DATABASE*"),
        ("pytest.exit.Exception('not here', 7)", 7, "*Exit: not here*"),
    ],
)
def test_a_conftest_that_refuses_the_run_is_heard(
    pytester: pytest.Pytester, refusal: str, status: int, said: str
) -> None:
    pytester.makeconftest(f"import pytest\ndef pytest_configure(config): raise {refusal}")
    result = pytester.runpytest_subprocess(*INI, *_plugin())
    assert result.ret == status
    result.stderr.fnmatch_lines([said])
    result.stderr.no_fnmatch_line("*Traceback*")
