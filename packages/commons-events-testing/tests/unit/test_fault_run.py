"""A run under faults leaves nothing behind, and hides nothing."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from commons_events.consumers import EventConsumer
from commons_events.message import Message
from commons_events.testing import EventTestHarness, FaultRun

pytestmark = pytest.mark.asyncio
SLEEPS = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); {}; time.sleep(600)"


async def test_what_work_raises_is_not_lost_where_the_condition_holds() -> None:
    async def fail() -> None:
        raise LookupError("lost")

    async def wait() -> None:
        await asyncio.Event().wait()

    run = FaultRun()
    cancelled = run.begin(wait())
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    await run.until(lambda: True, "nothing")
    await asyncio.wait([run.begin(fail())])
    with pytest.raises(LookupError, match="lost"):
        await run.until(lambda: True, "nothing")


async def test_an_async_condition_does_not_hold_by_being_one() -> None:
    async def never() -> bool:
        return False

    with pytest.raises(TypeError, match="awaits nothing"):
        await FaultRun().until(never, "nothing")


@pytest.mark.skipif(sys.platform == "win32", reason="looks at processes by signals")
@pytest.mark.parametrize(
    ("says", "patience", "seen"), [("print('hello', flush=True)", 180.0, "hello"), ("pass", 0.5, "began with b''")]
)
async def test_a_worker_that_does_not_get_ready_is_not_left(
    says: str, patience: float, seen: str, tmp_path: Path
) -> None:
    run, pid = FaultRun(), tmp_path / "pid"
    run.patience = patience
    with pytest.raises(AssertionError, match=seen):
        await run.worker("-c", SLEEPS.format(says), pid)
    if pid.exists():  # a busy machine may not have begun it within half a second
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


async def test_a_handler_that_is_cancelled_takes_nothing_more() -> None:
    run, leave = FaultRun(), asyncio.Event()
    async with EventTestHarness() as harness, harness.consumer("topic", group_id="g") as consumer, asyncio.timeout(60):
        waits = asyncio.Event()
        handling = asyncio.create_task(run.handle(_Told(consumer, waits), leave))  # type: ignore[arg-type]
        await waits.wait()
        handling.cancel()
        await asyncio.wait([handling])
        await harness.transport().publish([Message("topic", b"1", key=b"k")])
        [message] = await consumer.receive(1)
        assert message.value == b"1"
        await message.nack()
        handling = asyncio.create_task(run.handle(consumer, leave))
        await run.until(lambda: run.history.handled, "handling")
        leave.set()
        await handling
        assert run.history.handled == [("k", 1)]


class _Told:
    """A consumer that tells when it waits for messages."""

    def __init__(self, consumer: EventConsumer, waits: asyncio.Event) -> None:
        self.consumer = consumer
        self.waits = waits

    async def receive(self, limit: int) -> object:
        asyncio.get_running_loop().call_soon(self.waits.set)
        return await self.consumer.receive(limit)
