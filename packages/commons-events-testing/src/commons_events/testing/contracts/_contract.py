"""What all contracts share: no test gets lost in a subclass, none hangs, and each tidies up behind itself."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, ClassVar, cast

import pytest

from commons_events.transport import Capabilities

__all__ = ["Contract", "ContractError", "missing_reasons", "requires"]

_EXCUSES = ("skip", "skipif", "xfail")


class ContractError(TypeError):
    """A subclass of a contract drops one of its tests without saying why."""


def requires(capabilities: Capabilities, *names: str) -> None:
    """Skip the running test where one of these capabilities is not claimed, and say which."""
    for name in names:
        claim = getattr(capabilities, name)
        if claim is None:
            pytest.skip(f"capability {name} is not stated")
        if claim is False or claim == "none":
            pytest.skip(f"capability {name} is not claimed")


def missing_reasons(marks: Iterable[pytest.Mark]) -> list[str]:
    """The names of those marks that skip a test or expect it to fail, but do not say why."""
    return [mark.name for mark in marks if mark.name in _EXCUSES and not _reason(mark)]


class Contract:
    """A pytest class of tests that a subclass takes over completely.

    Checked when a subclass is made, and again while it runs: every test of the contract is there as it was written,
    or overridden by one with ``@pytest.mark.xfail(reason=…)``, ``skip(reason=…)`` or ``skipif(…, reason=…)``.
    """

    pytestmark: ClassVar[Any] = [pytest.mark.asyncio]
    hang_after: ClassVar[float] = 120.0
    """Seconds after which a test has hung."""
    _is_contract: ClassVar[bool] = True

    def __init_subclass__(cls, *, contract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._is_contract = contract
        if contract:
            for name, test in list(vars(cls).items()):
                if name.startswith("test_"):
                    setattr(cls, name, _guarded(test))
        else:
            check(cls)

    async def clean_up(self) -> None:
        """Called after every test, failed ones included: closes what the test left open."""

    async def test_contract_is_complete(self) -> None:
        """No test of the contract was dropped after the class had been made."""
        check(type(self))


def check(cls: type[Contract]) -> None:
    """Raise `ContractError` where ``cls`` lacks a test of its contracts, or overrides one without a reason."""
    problems = list(_problems(cls))
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise ContractError(
            f"{cls.__module__}.{cls.__qualname__} does not take over its whole contract:{listed}\n"
            "Override a test only with @pytest.mark.xfail(reason=...) or skip(reason=...), or do not claim the "
            "capability that it tests."
        )


def _problems(cls: type[Contract]) -> Iterator[str]:
    expected: dict[str, object] = {}
    for base in reversed(cls.__mro__):
        if vars(base).get("_is_contract"):
            expected.update((name, test) for name, test in vars(base).items() if name.startswith("test_"))
    for name, test in expected.items():
        actual = inspect.getattr_static(cls, name, None)
        marks = _marks(actual)
        if actual is test:
            if any(mark.name in _EXCUSES for mark in marks):
                yield f"{name} was marked in place, for every other subclass too: override it and mark the override"
        elif not inspect.isfunction(actual):
            yield f"{name} is {actual!r} instead of a test"
        elif not any(mark.name in _EXCUSES and _reason(mark) for mark in marks):
            yield f"{name} is overridden without an xfail or skip that has a reason"
    for mark in missing_reasons(_marks(cls)):
        yield f"the class is marked {mark} without a reason"


def _marks(thing: object) -> list[pytest.Mark]:
    marks: Any = getattr(thing, "pytestmark", [])
    listed = cast("list[pytest.Mark | pytest.MarkDecorator]", marks if isinstance(marks, list) else [marks])
    return [mark.mark if isinstance(mark, pytest.MarkDecorator) else mark for mark in listed]


def _reason(mark: pytest.Mark) -> str:
    reason = mark.kwargs.get("reason", "")
    if not reason and mark.name == "skip" and mark.args:
        reason = mark.args[0]
    return reason.strip() if isinstance(reason, str) else ""


def _guarded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """``test`` with an end: a hang is a failure, and what was left open is closed."""

    @functools.wraps(test)
    async def run(self: Contract) -> None:
        __tracebackhide__ = True
        limit = asyncio.timeout(self.hang_after)
        try:
            async with limit:
                await test(self)
        except TimeoutError:
            if not limit.expired():
                raise
            raise AssertionError(f"{test.__name__} hangs: stopped after {self.hang_after:g} s.") from None
        finally:
            cleaning = asyncio.timeout(self.hang_after)
            try:
                async with cleaning:
                    await self.clean_up()
            except TimeoutError:
                if not cleaning.expired():
                    raise
                raise AssertionError(
                    f"Closing after {test.__name__} hangs: stopped after {self.hang_after:g} s."
                ) from None

    return run
