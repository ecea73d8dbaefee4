"""`FaultRun`: senders, consumers and worker processes of a run in which something is killed, frozen or cut off."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commons_events.testing._history import History

if TYPE_CHECKING:
    from commons_events.consumers import EventConsumer
    from commons_events.transport import Delivery

__all__ = ["FaultRun"]


class FaultRun:
    """What is sent and handled under several keys while a test does its harm, and the `History` of it.

    A broker's tests subclass it with their own clients. A message's value is its number under its key, in decimal.

    Args:
        history: one that goes on; None begins one.
    """

    keys: tuple[str, ...] = tuple(f"key-{place}" for place in range(8))
    """Those that `produce` sends under."""
    patience: float = 180.0
    """Seconds that `until` waits on a busy machine."""

    def __init__(self, history: History | None = None) -> None:
        self.history = history or History()
        self.stop = asyncio.Event()
        """Ends `produce`."""
        self.tasks: list[asyncio.Task[None]] = []

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let work go on beside the test; `until` raises what it raised."""
        task = asyncio.create_task(work)
        self.tasks.append(task)
        return task

    async def produce(self, send: Callable[[str, bytes], Awaitable[object]], *, pause: float = 0.002) -> None:
        """Send each key's numbers in order until `stop`; one counts as confirmed once its awaitable is done.

        Args:
            send: sends a value under a key.
            pause: seconds between two numbers.
        """
        number = 0
        while not self.stop.is_set():
            sending = [send(key, b"%d" % number) for key in self.keys]
            for key, sent in zip(self.keys, sending, strict=True):
                await sent
                self.history.confirmed.append((key, number))
            number += 1
            await asyncio.sleep(pause)

    def note(self, key: str, number: int) -> None:
        """Write down that a message was handled."""
        self.history.handled.append((key, number))

    async def handle(
        self, consumer: EventConsumer, leave: asyncio.Event, *, check: Callable[[Delivery], object] | None = None
    ) -> None:
        """Receive and acknowledge messages until ``leave``.

        Args:
            consumer: an open one.
            leave: ends it, also while nothing comes.
            check: looks at each message before it is acknowledged.
        """
        leaving = asyncio.create_task(leave.wait())
        try:
            while not leave.is_set():
                receiving = asyncio.ensure_future(consumer.receive(50))
                try:
                    await asyncio.wait([receiving, leaving], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    receiving.cancel()  # also where this task is cancelled: it would take what others are to get
                    await asyncio.wait([receiving])
                if receiving.cancelled():
                    break
                for message in receiving.result():
                    self.note((message.key or b"").decode(), int(message.value or b""))
                    if check is not None:
                        check(message)
                    await message.ack()
        finally:
            leaving.cancel()

    async def worker(self, *arguments: str | Path, folder: Path | None = None) -> asyncio.subprocess.Process:
        """A process of this Python, which has printed ``ready``; `watch` reads what it handles.

        Args:
            arguments: a program's path and what it takes, or ``-m``, a module's name and what that takes.
            folder: where it works; by default here.

        Raises:
            AssertionError: its first line is another one, or it ended, or said nothing for `patience` seconds. It is
                killed then.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable, *map(str, arguments), stdout=asyncio.subprocess.PIPE, cwd=folder
        )
        assert process.stdout is not None
        first = b""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.patience):
                    first = await process.stdout.readline()
        finally:
            if first != b"ready\n":
                with suppress(ProcessLookupError):
                    process.kill()
                await process.communicate()
        assert first == b"ready\n", f"{arguments} began with {first!r}"
        return process

    async def watch(self, process: asyncio.subprocess.Process) -> None:
        """Write down what a worker handles, each a line of key and number, until it ends; half a line doesn't count."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            key, _, number = line.decode().strip().rpartition(" ")
            if line.endswith(b"\n") and key and number.isdigit():
                self.note(key, int(number))

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until ``condition()`` holds, and all work goes on that was begun.

        Raises:
            AssertionError: it took longer than `patience`; ``what`` is in the message, and how much is missing.
            TypeError: the condition is async.
            BaseException: what work raised that `begin` let go on.
        """
        try:
            async with asyncio.timeout(self.patience):
                while True:
                    self._look_at_work()
                    if _answer(condition):
                        return
                    await asyncio.sleep(0.05)  # it is about counters
        except TimeoutError:
            raise AssertionError(
                f"{what} took more than {self.patience:g} s; {len(self.history.missing())} of "
                f"{len(self.history.confirmed)} confirmed ones are missing"
            ) from None

    def _look_at_work(self) -> None:
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.result()


def _answer(condition: Callable[[], object]) -> object:
    value = condition()
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise TypeError("until() takes a condition that awaits nothing; for another one there is eventually().")
    return value
