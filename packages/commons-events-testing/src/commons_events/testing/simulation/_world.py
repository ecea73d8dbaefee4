"""One simulated run: a broker, workers that can die, an outside world that remembers, and a schedule of faults."""

from __future__ import annotations

import asyncio
import random
import warnings
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from commons_events.errors import DeserializationError
from commons_events.event import Event
from commons_events.memory import MemoryBroker, MemoryLimits
from commons_events.producers import EventProducer, ProducerConfig
from commons_events.runtime import use_runtime
from commons_events.testing._virtual_time import VirtualTime
from commons_events.testing.simulation._faults import Fault, FaultKind
from commons_events.testing.simulation._history import Handled, History, Sent
from commons_events.testing.simulation._loop import PROCESS, HangError, Process, SimulatedLoop
from commons_events.testing.simulation._transport import SimulatedTransport
from commons_events.transport import Delivery, Transport

__all__ = ["Scenario", "SimulatedEvent", "Worker", "run_once"]


class SimulatedEvent(Event):
    """What is sent where a scenario has no events of its own."""

    event_type = "commons-events.simulated"
    number: int
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What every run of a simulation has in common."""

    topic: str = "events"
    events: int = 20
    """How many events are sent, each a moment after the one before."""
    keys: int = 3
    """Over how many keys."""
    partitions: int = 2
    workers: int = 2
    dead_letter_topic: str | None = None
    """Where events may end that are not handled."""
    make_event: Callable[[int, str], Event] = lambda number, key: SimulatedEvent(number=number, key=key)
    """The event of a number and a key."""
    interval: float = 0.01
    """Seconds between one event of each key and the next ones."""
    session_timeout: float = 5.0
    """Seconds until the broker takes a worker for dead."""
    patience: float = 300.0
    """Seconds that the workers have, once all is sent, to finish."""
    grace: float = 30.0
    """Seconds that a worker has, once it is cancelled, to end."""
    max_steps: int = 500_000
    """Steps of all workers after which a run is taken for one without an end."""

    def __post_init__(self) -> None:
        for name in ("events", "keys", "partitions", "workers", "max_steps"):
            count: object = getattr(self, name)
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"Scenario: {name}={count!r} has to be 1 or more.")


@dataclass(slots=True)
class Worker:
    """What a worker's program is given: its connection, and the world outside that outlives it."""

    name: str
    transport: Transport
    handled: Callable[[Delivery], None]
    """To be called where the handling of a message has its effect: a row written, a mail sent."""


Program = Callable[[Worker], Awaitable[object]]
"""A worker's program. It runs until it is cancelled; it is started again after it has died."""


@cache
def _sender() -> ProducerConfig:
    """Made once: reading the environment takes longer than a short run."""
    return ProducerConfig(source="urn:simulation")


class _SimulatedRuntime(VirtualTime):
    """The loop's time, and randomness and ids from a seed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seed: int) -> None:
        super().__init__(loop, _EPOCH)
        self._seeded = random.Random(seed)
        self._ids = 0

    def random(self) -> float:
        return self._seeded.random()

    def new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids}"


_EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
_QUIET = 3.0
"""Seconds without anything to do, after which nothing more is expected."""
_MOST_CLEANUPS = 100
"""How often a dead coroutine may await while it is taken away."""


@dataclass(slots=True)
class _Life:
    """A worker from its start to its end."""

    process: Process
    transport: SimulatedTransport
    task: asyncio.Task[object]


class _Run:
    def __init__(self, program: Program, scenario: Scenario, schedule: Sequence[Fault], seed: int) -> None:
        self.program = program
        self.scenario = scenario
        self.schedule = sorted(schedule, reverse=True)
        self.history = History()
        self.steps = 0
        self.deliveries = 0
        self.loop = SimulatedLoop(self.before_step, scenario.max_steps)
        self.runtime = _SimulatedRuntime(self.loop, seed)
        self.lives: dict[str, _Life] = {}
        self.buried: list[asyncio.Task[object]] = []
        self.armed: dict[str, list[FaultKind]] = {}
        self.starts = 0
        self.failure: BaseException | None = None
        self.ending = False

    # --- the run -----------------------------------------------------------------------------------------------

    def run(self) -> History:
        with use_runtime(self.runtime), warnings.catch_warnings():
            # What a dead process leaves behind was never meant to be awaited.
            warnings.simplefilter("ignore")
            try:
                self.loop.run_until_complete(self.main())
            finally:
                self.bury()
                self.loop.close()
        return self.history

    async def main(self) -> None:
        scenario = self.scenario
        self.broker = MemoryBroker("simulated", MemoryLimits(partitions=scenario.partitions), runtime=self.runtime)
        self.broker.declare(scenario.topic, scenario.partitions)
        for number in range(scenario.workers):
            self.start(f"worker {number + 1}")
        await self.send_all()
        await self.wait_for_the_end()
        self.ending = True
        for life in list(self.lives.values()):
            await self.stop(life)
        self.look_into_the_broker()

    async def send_all(self) -> None:
        scenario = self.scenario
        transport = SimulatedTransport(self.broker, lambda kind: False)
        async with EventProducer(_sender(), transport=transport) as producer:
            for first in range(0, scenario.events, scenario.keys):
                events: list[tuple[Event, str]] = []
                for number in range(first, min(first + scenario.keys, scenario.events)):
                    key = f"key-{number % scenario.keys}"
                    events.append((scenario.make_event(number, key), key))
                for receipt in [producer.send(scenario.topic, event, key=key) for event, key in events]:
                    await receipt
                for number, (event, key) in enumerate(events, first):
                    self.history.sent.append(Sent(event.event_id, key.encode(), number))
                    self.note("sent event %d of %s", number, key)
                await asyncio.sleep(scenario.interval)

    async def wait_for_the_end(self) -> None:
        """Until nothing has been left to do for a while, or patience is over."""
        deadline = self.loop.time() + self.scenario.patience
        quiet_since = self.loop.time()
        while quiet_since + _QUIET > self.loop.time() < deadline:
            # Who would set an event is what is tested, and in virtual time looking costs nothing.
            await asyncio.sleep(0.5)
            now = self.loop.time()
            frozen = any(life.process.frozen_until > now for life in self.lives.values())
            if frozen or not self.lives or self.unfinished():
                quiet_since = now

    # --- workers -----------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        process = Process(name)
        transport = SimulatedTransport(self.broker, lambda kind: self.strikes(name, kind))
        worker = Worker(name, transport, lambda delivery: self.handled(name, delivery))
        context: Context = copy_context()
        context.run(PROCESS.set, process)
        self.starts += 1
        self.note("%s starts", name)

        async def live() -> object:
            return await self.program(worker)

        task = self.loop.create_task(live(), name=name, context=context)
        life = self.lives[name] = _Life(process, transport, task)
        task.add_done_callback(lambda _: self.ended(name, life), context=copy_context())

    def ended(self, name: str, life: _Life) -> None:
        """A worker's program has ended by itself, by cancellation or by an exception."""
        if life.process.dead:
            return
        life.process.dead = True
        self.lives.pop(name, None)
        error = None if life.task.cancelled() else life.task.exception()
        if error is not None:
            self.note("%s ends with %s: %s", name, type(error).__name__, error)
            if not self.schedule_has_struck:
                self.failure = self.failure or error
        life.transport.lose()
        if not self.ending and name in self.permanent:
            self.loop.call_later(1.0, self.start, name)

    def kill(self, life: _Life) -> None:
        life.process.dead = True
        self.lives.pop(life.process.name, None)
        self.buried.append(life.task)
        self.loop.call_later(self.scenario.session_timeout, life.transport.lose)
        if life.process.name in self.permanent:
            self.loop.call_later(1.0, self.start, life.process.name)

    async def stop(self, life: _Life) -> None:
        life.task.cancel()
        _, late = await asyncio.wait([life.task], timeout=self.scenario.grace)
        if late:
            raise HangError(f"{life.process.name} did not end within {self.scenario.grace:g} s of its cancellation")

    @property
    def permanent(self) -> set[str]:
        return {f"worker {number + 1}" for number in range(self.scenario.workers)}

    # --- faults ------------------------------------------------------------------------------------------------

    @property
    def schedule_has_struck(self) -> bool:
        return self.struck > 0

    struck = 0

    def before_step(self, process: Process) -> None:
        step, self.steps = self.steps, self.steps + 1
        while self.schedule and self.schedule[-1].step <= step:
            fault = self.schedule.pop()
            life = self.lives.get(process.name)
            if life is None or life.process is not process or self.ending:
                continue
            self.struck += 1
            self.note("FAULT %s of %s, before step %d", fault.kind, process.name, step)
            self.strike(fault.kind, life)

    def strike(self, kind: FaultKind, life: _Life) -> None:
        match kind:
            case FaultKind.CRASH:
                self.kill(life)
            case FaultKind.STOP:
                life.task.cancel()
            case FaultKind.FREEZE:
                life.process.frozen_until = self.loop.time() + 2 * self.scenario.session_timeout
                self.loop.call_later(self.scenario.session_timeout, life.transport.lose)
            case FaultKind.DISCONNECT:
                life.transport.lose()
            case FaultKind.JOIN:
                name = f"guest {self.starts}"
                self.loop.call_soon(self.start, name)
                self.loop.call_later(3.0, self.dismiss, name)
            case _:
                self.armed.setdefault(life.process.name, []).append(kind)

    def dismiss(self, name: str) -> None:
        life = self.lives.get(name)
        if life is not None:
            life.task.cancel()

    def strikes(self, name: str, kind: FaultKind) -> bool:
        armed = self.armed.get(name)
        if armed and kind in armed and not self.ending:
            armed.remove(kind)
            self.note("%s: %s", name, kind)
            return True
        return False

    # --- what is seen ------------------------------------------------------------------------------------------

    def handled(self, name: str, delivery: Delivery) -> None:
        event_id = _event_id(delivery)
        self.deliveries += 1
        self.history.handled.append(Handled(event_id, delivery.key, name, self.loop.time()))
        self.note("%s handled %s of %s, attempt %d", name, event_id, delivery.key, delivery.attempt)

    def note(self, line: str, *values: object) -> None:
        self.history.notes.append((self.loop.time(), line, values))

    def unfinished(self) -> int:
        return self.broker.lag()

    def look_into_the_broker(self) -> None:
        self.history.unfinished = self.unfinished()
        topic = self.scenario.dead_letter_topic
        if topic is not None and any(info.topic == topic for info in self.broker.topics()):
            for partition in range(next(i.partitions for i in self.broker.topics() if i.topic == topic)):
                for stored in self.broker.browse(topic, partition, 0, 1_000_000):
                    self.history.dead_letters.append(stored.message)
                    self.history.dead_letter_ids.add(stored.message.header("ce_id") or "")

    def bury(self) -> None:
        """Take away what is left of the dead, without a word of it."""
        done: set[asyncio.Task[object]] = set()
        while left := {*self.buried, *asyncio.all_tasks(self.loop)} - done:  # taking one away may start another
            done |= left
            for task in left:
                _close(task)


def _close(task: asyncio.Task[object]) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = task.get_coro()
    for _ in range(_MOST_CLEANUPS):
        try:
            coroutine.close()
        except Exception:  # noqa: BLE001  # it awaits, or fails, in a `finally` that a dead process has not run
            continue
        break


def _event_id(delivery: Delivery) -> str:
    identity = delivery.message.header("ce_id")
    if identity is None:
        raise DeserializationError("A message without ce_id was handled; the simulation sends none.")
    return identity


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    history: History
    steps: int
    deliveries: int
    problems: Sequence[str]


def run_once(program: Program, scenario: Scenario, schedule: Sequence[Fault], seed: int = 0) -> Result:
    """One run, which is the same for the same arguments. A hang, or a failure without any fault, is a problem."""
    run = _Run(program, scenario, schedule, seed)
    problems: list[str] = []
    try:
        run.run()
    except HangError as error:
        problems.append(f"hang: {error}")
    if run.failure is not None:
        problems.append(f"failed without any fault: {type(run.failure).__name__}: {run.failure}")
    return Result(run.history, run.steps, run.deliveries, problems)
