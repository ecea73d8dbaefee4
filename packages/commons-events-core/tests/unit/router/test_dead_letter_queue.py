"""`DeadLetterQueue` and ``commons-events dlq``: filters, dry run, resuming, order, and brokers that cannot browse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from commons_events import Event
from commons_events.cli._app import app
from commons_events.dead_letters import MARK, DeadLetter, DeadLetterQueue, LetterFilter
from commons_events.errors import PublishError, TransportError
from commons_events.memory import MemoryBroker, MemoryTransport
from commons_events.message import Message, PublishResult
from commons_events.retries import Retry
from commons_events.router import DeadLetters, EventRouter
from commons_events.testing import EventTestHarness
from commons_events.transport import Capabilities


class Paid(Event):
    event_type = "router.paid"
    n: int = 0


async def fill(harness: EventTestHarness, count: int = 4, order: str = "none") -> None:
    router = EventRouter()

    @router.subscribe(
        "paid", group="g", retry=Retry(attempts=1), dead_letter=DeadLetters("letters", order=order)  # type: ignore[arg-type]
    )  # fmt: skip
    async def handle(event: Paid) -> None:
        raise ValueError(f"number {event.n}") if event.n % 2 else LookupError("even")

    async with harness.run(router) as t:
        await t.send("paid", *(Paid(n=n) for n in range(count)), key="k")
        await t.idle()


async def found(queue: DeadLetterQueue, wanted: LetterFilter | None = None) -> list[int]:
    return [Paid.from_json(letter.message.value or b"").n async for letter in queue.letters(wanted)]


async def republished(harness: EventTestHarness) -> list[int]:
    return [event.n for event in await harness.events("paid", count=4) if isinstance(event, Paid)][4:]


class NoBrowsing(MemoryTransport):
    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, browse=False)


@pytest.mark.asyncio
@pytest.mark.parametrize("transport", [MemoryTransport, NoBrowsing])
async def test_letters_are_listed_filtered_redriven_and_discarded(
    harness: EventTestHarness, transport: type[MemoryTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commons_events.dead_letters._queue._QUIET", 0.05)
    await fill(harness)
    queue = DeadLetterQueue(transport(harness.broker), "letters")
    assert queue.browses is (transport is MemoryTransport)
    assert await found(queue) == [0, 1, 2, 3]
    assert await found(queue) == [0, 1, 2, 3]  # looking changes nothing
    assert await found(queue, LetterFilter(error="ValueError")) == [1, 3]
    assert await found(queue, LetterFilter(error="NUMBER 3", topic="paid", group="g", key=b"k")) == [3]
    assert await found(queue, LetterFilter(reason="decoded")) == []
    progress: list[int] = []
    report = await queue.redrive(LetterFilter(error="LookupError"), progress=progress.append)
    assert (report.done, progress) == (2, [1, 2])
    assert await republished(harness) == [0, 2]
    assert await found(queue) == [1, 3]
    assert (await queue.discard(LetterFilter(error="number 1"))).done == 1
    assert await found(queue) == [3]
    assert (await queue.redrive()).done == 1
    assert await found(queue) == []
    assert await republished(harness) == [0, 2, 3]


@pytest.mark.asyncio
async def test_a_follower_does_not_go_without_those_before_it(harness: EventTestHarness) -> None:
    await fill(harness, order="key")
    queue = DeadLetterQueue(MemoryTransport(harness.broker), "letters")
    letters = [letter async for letter in queue.letters()]
    report = await queue.redrive(LetterFilter(ids=frozenset({letters[1].id, letters[2].id})))
    assert (report.done, report.held_back) == (0, 2)
    assert (await queue.redrive(LetterFilter(ids=frozenset({letters[0].id, letters[1].id})))).done == 2
    assert (await queue.redrive()).done == 2  # what is under way is not sent again
    assert await republished(harness) == [0, 1, 2, 3]
    assert len([letter async for letter in queue.letters()]) == 4  # until their router has handled them


@pytest.mark.asyncio
async def test_a_letter_that_comes_back_before_it_is_noted_as_redriven_can_be_redriven_again(
    harness: EventTestHarness,
) -> None:
    """Its router is faster than whoever redrives it: the note of the one follows that of the other."""
    router = EventRouter()
    tries: list[int] = []
    tried = asyncio.Event()

    @router.subscribe("paid", group="g", retry=Retry(attempts=1), dead_letter=DeadLetters("letters", order="key"))
    async def handle(event: Paid) -> None:
        tries.append(event.n)
        tried.set()
        if len(tries) < 3:
            raise ValueError("not yet")

    class NotesLate(MemoryTransport):
        async def _later(self, messages: Sequence[Message]) -> Sequence[PublishResult]:
            await tried.wait()
            await t.idle()
            return await super().publish(messages)

        def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
            if messages[0].header(MARK) is None:
                return super().publish(messages)
            return asyncio.ensure_future(self._later(messages))

    async with harness.run(router) as t:
        await t.send("paid", Paid(n=1), key="k")
        await t.idle()
        tried.clear()
        assert (await DeadLetterQueue(NotesLate(harness.broker), "letters").redrive()).done == 1
        assert tries == [1, 1]
        queue = DeadLetterQueue(MemoryTransport(harness.broker), "letters")
        assert await found(queue) == [1]
        assert (await queue.redrive()).done == 1
        await t.idle()
        assert tries == [1, 1, 1]
        assert await found(queue) == []


@pytest.mark.asyncio
async def test_redriving_goes_on_where_it_failed(harness: EventTestHarness) -> None:
    await fill(harness)

    class Fails(MemoryTransport):
        async def _some(self, messages: Sequence[Message]) -> Sequence[PublishResult]:
            return [*await super().publish(messages[:2]), *(PublishError("broken") for _ in messages[2:])]

        def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
            if messages[0].topic != "paid":
                return super().publish(messages)
            return asyncio.ensure_future(self._some(messages))

    with pytest.raises(PublishError, match="broken"):
        await DeadLetterQueue(Fails(harness.broker), "letters").redrive()
    assert (await DeadLetterQueue(MemoryTransport(harness.broker), "letters").redrive()).done == 2
    assert await republished(harness) == [0, 1, 2, 3]


@pytest.mark.asyncio
async def test_a_rate_is_kept(harness: EventTestHarness) -> None:
    await fill(harness)
    async with harness.run(EventRouterOfNothing()) as t:
        await DeadLetterQueue(MemoryTransport(harness.broker), "letters").redrive(rate=0.5)
        assert 8 <= t.time.passed < 9


def EventRouterOfNothing() -> EventRouter:  # noqa: N802
    router = EventRouter()

    @router.subscribe("nothing", group="g")
    async def handle(event: Paid) -> None: ...

    return router


# --- the command line --------------------------------------------------------------------------------------------


@pytest.fixture
def broker() -> Iterator[str]:
    MemoryBroker.reset_all()
    asyncio.run(fill(EventTestHarness(MemoryBroker.get("dlq"))))
    yield "memory://dlq"
    MemoryBroker.reset_all()


def dlq(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["dlq", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_commands_list_show_export_redrive_and_discard(broker: str, tmp_path: Path) -> None:
    code, out, _ = dlq("list", "letters", "--broker", broker, "--error", "ValueError", "--json")
    letters = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [letter["error_message"] for letter in letters] == ["number 1", "number 3"]
    code, out, _ = dlq("show", "letters", letters[0]["id"], "--broker", broker)
    assert code == 0
    assert json.loads(json.loads(out)["value"])["n"] == 1
    code, _, err = dlq("show", "letters", "nowhere", "--broker", broker)
    assert (code, "No letter nowhere" in err) == (1, True)
    assert dlq("export", "letters", "--broker", broker, "--to", str(tmp_path / "file"))[0] == 0
    assert len((tmp_path / "file").read_text("utf-8").splitlines()) == 4
    code, _, err = dlq("discard", "letters", "--broker", broker)
    assert (code, "--all" in err) == (2, True)
    code, _, err = dlq("discard", "letters", "--broker", broker, "--id", "nowhere")
    assert (code, "No such letters in letters" in err) == (1, True)
    code, out, err = dlq("discard", "letters", "--broker", broker, "--all", "--dry-run")
    assert (code, len(out.splitlines()), "nothing was done" in err) == (0, 4, True)
    assert dlq("discard", "letters", "--broker", broker, "--error", "even")[0] == 0
    code, _, err = dlq("redrive", "letters", "--broker", broker, "--all")
    assert (code, "2 letters: redrive done" in err) == (0, True)
    code, out, err = dlq("list", "letters", "--broker", broker)
    assert (code, out) == (0, "")
    assert "No such letters" in err
    assert dlq("list", "letters", "--broker", "kafak://x")[0] == 2


@pytest.mark.parametrize("fails", [None, TransportError("gone")])
def test_a_file_is_exported_whole_or_left_as_it_was(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Exception | None
) -> None:
    file = tmp_path / "file"
    file.write_text("before", "utf-8")
    file.chmod(0o600)  # who may read letters
    link = tmp_path / "link"
    link.symlink_to(file)
    if fails is not None:

        async def letters(self: DeadLetterQueue, wanted: LetterFilter) -> AsyncIterator[DeadLetter]:
            async for letter in of_broker(self, wanted):
                yield letter
                raise fails

        of_broker = DeadLetterQueue.letters
        monkeypatch.setattr(DeadLetterQueue, "letters", letters)
    code, _, _ = dlq("export", "letters", "--broker", broker, "--to", str(link))
    assert code == (0 if fails is None else 1)
    assert (file.read_text("utf-8") == "before") is (fails is not None)
    assert file.stat().st_mode & 0o777 == 0o600
    assert link.is_symlink()
    assert {*tmp_path.iterdir()} == {file, link}


@pytest.mark.parametrize("place", [".", "not/there"])
def test_a_place_that_cannot_be_written_is_told(broker: str, tmp_path: Path, place: str) -> None:
    code, _, err = dlq("export", "letters", "--broker", broker, "--to", str(tmp_path / place))
    assert (code, "cannot be written" in err) == (2, True)
