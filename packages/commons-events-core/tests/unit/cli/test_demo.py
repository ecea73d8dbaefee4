"""The demo: what it counts is what the file has, and every complaint says where."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import pytest
from typer.testing import CliRunner

from commons_events.cli import _scenario
from commons_events.cli._app import app
from commons_events.cli._desk import OrderDesk
from commons_events.cli._input import MAX_LINE, open_lines
from commons_events.cli._scenario import Result, Scenario, _UnderWay
from commons_events.event import Event
from commons_events.memory import MemoryBroker, MemoryTransport
from commons_events.message import Message
from commons_events.plugins import DEMOS, names, register, unregister
from commons_events.transport import Outcome, Settlement

ORDERS = files("commons_events.cli").joinpath("data", "orders.jsonl").read_text("utf-8").splitlines()
BROKEN = {
    41: "not JSON: EOF while parsing a string at column",
    92: "currency: Field required",
    135: "items.0.quantity: Input should be a valid integer",
    177: "No event class is known for the type 'order.gift-wrapped'",
    214: "amount is NaN",
    233: "total is 20.46, and the items come to 19.56",
}
VALID = [json.loads(line) for number, line in enumerate(ORDERS, 1) if number not in BROKEN]

PAGES = """
from commons_events import Event, EventSchema

class PageSeen(Event):
    event_type = "page.seen"
    page: str
    seconds: float = 0.0

@EventSchema(name="page.left", version="2.1.0")
class PageLeft(PageSeen):
    to: str

class Plain:
    pass

number = 3
"""

Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.usefixtures("memory_broker")


def invoke(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["demo", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.output


def run(path: Path | None = None, *, event_class: type[Event] = Event, topic: str = "demo") -> tuple[Result, OrderDesk]:
    desk = OrderDesk()
    with open_lines(path) as lines:
        scenario = Scenario(lines, event_class, desk, broker="memory", topic=topic)
        return asyncio.run(scenario.run()), desk


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a module of event classes."""
    (tmp_path / "my_pages.py").write_text(PAGES, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_pages", raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def only_core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what other distributions show, but for tests of that."""
    if "other" not in request.fixturenames:
        monkeypatch.setattr("commons_events.cli._demo.names", lambda group: [])


@pytest.fixture
def other() -> Iterator[Callable[[Callable[[Sequence[Event]], Sequence[str]]], None]]:
    """Offers what another distribution shows, alone."""
    added: list[str] = []

    def offer(show: Callable[[Sequence[Event]], Sequence[str]]) -> None:
        added.append("a-test")
        register(DEMOS, "a-test", show)

    yield offer
    for name in added:
        unregister(DEMOS, name)


# --- the file that ships with it -------------------------------------------------------------------------------


def test_every_line_of_the_shipped_file_is_handled_or_dead() -> None:
    result, _ = run()

    assert result.lines == len(ORDERS)
    of_each_type = Counter(event["event_type"] for event in VALID)
    assert len(of_each_type) == 4
    assert result.made == result.sent == result.received == result.handled == of_each_type
    assert result.raw == result.rejected == result.dead == len(BROKEN)
    assert not result.missing


def test_handlers_compute_what_the_file_says() -> None:
    _, desk = run()

    def total(event_type: str, field: str, currency: str) -> Decimal:
        events = (e for e in VALID if e["event_type"] == event_type and e.get("currency") == currency)
        return sum((Decimal(e[field]) for e in events if e.get(field)), Decimal(0))

    assert set(desk.turnover) == {"EUR", "GBP", "SEK", "USD"}
    for currency, turnover in desk.turnover.items():
        assert turnover.ordered == total("order.placed", "total", currency)
        assert turnover.paid == total("order.paid", "amount", currency)
        assert turnover.refunded == total("order.cancelled", "refund", currency)
        assert turnover.revenue == turnover.paid - turnover.refunded > 0
    orders = sum(turnover.orders for turnover in desk.turnover.values())
    assert orders == sum(e["event_type"] == "order.placed" for e in VALID)
    assert desk.parcels.total() == sum(e["event_type"] == "order.shipped" for e in VALID)
    assert desk.cancellations.total() == sum(e["event_type"] == "order.cancelled" for e in VALID)


def test_each_broken_line_is_shown_with_its_number_and_reason() -> None:
    code, output = invoke()

    assert code == 0
    for number, reason in BROKEN.items():
        (row,) = (row for row in output.splitlines() if f"orders.jsonl:{number} " in row)
        assert reason in row


def test_both_consumers_of_the_group_have_a_share() -> None:
    result, _ = run()

    assert all(result.by_consumer)
    assert sum(result.by_consumer) == len(VALID)


def test_dead_letters_hold_the_line_as_it_was(memory_broker: MemoryBroker) -> None:
    run(topic="kept")

    stored = [
        stored.message
        for info in memory_broker.topics()
        if info.topic == "kept.dead-letters"
        for partition in range(info.partitions)
        for stored in memory_broker.browse(info.topic, partition, 0, 100)
    ]
    by_line = {int(message.header("demo-line") or 0): message for message in stored}
    assert by_line.keys() == BROKEN.keys()
    for number, message in by_line.items():
        assert message.value == ORDERS[number - 1].encode()
        assert message.header("deadletter-topic") == "kept"
        assert message.header("deadletter-error-type")


def test_runs_as_a_program(cli: Cli, tmp_path: Path) -> None:
    done = cli("demo")

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"{len(ORDERS)} read = {len(VALID)} handled + {len(BROKEN)} in the dead letters" in done.stdout
    assert "\x1b" not in done.stdout  # no bar and no colours where nobody watches
    assert list(tmp_path.iterdir()) == []


def test_what_lies_on_the_topic_from_before_is_passed_over() -> None:
    async def leave_behind() -> None:
        transport = MemoryTransport()
        await transport.publish([Message("demo", b"of another program"), Message("demo", None)])
        await transport.close()

    asyncio.run(leave_behind())
    for _ in range(2):
        result, _ = run()
        assert result.done == result.lines == len(ORDERS)


# --- one's own file and class ----------------------------------------------------------------------------------


def test_own_file_and_class(pages: Path) -> None:
    lines = [
        '{"page": "/tea"}',
        "",
        '{"page": "/pots", "seconds": "3.5", "new": 1}\r',
        '{"page": ["/cups"]}',
        '{"page": "/cups", "seconds": 1',
    ]
    Path("seen.jsonl").write_bytes("\n".join(lines).encode())

    code, output = invoke("seen.jsonl", "--event", "my_pages:PageSeen")

    assert code == 0
    assert "4 read = 2 handled + 2 in the dead letters (1 blank, passed over)" in output
    (wrong_type,) = (row for row in output.splitlines() if "seen.jsonl:4 " in row)
    assert "page: Input should be a valid string" in wrong_type
    (cut_off,) = (row for row in output.splitlines() if "seen.jsonl:5 " in row)
    assert "EOF" in cut_off
    assert "exit code 0" in output


def test_a_base_class_stands_for_its_subclasses(pages: Path) -> None:
    Path("seen.jsonl").write_text(
        '\ufeff{"event_type": "page.seen", "page": "/"}\n'
        '{"event_type": "page.left", "version": "2.1.0", "page": "/", "to": "/x"}\n',
        "utf-8",
    )

    code, output = invoke("seen.jsonl", "--event", "my_pages:PageSeen")

    assert code == 0
    assert "2 read = 2 handled" in output
    assert "page.left" in output


def test_own_class_may_have_a_type_of_the_demos(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "my_pages.py").write_text(PAGES.replace("page.seen", "order.placed"), "utf-8")
    (tmp_path / "seen.jsonl").write_text('{"page": "/"}\n', "utf-8")

    done = cli("demo", "seen.jsonl", "--event", "my_pages:PageSeen")

    assert done.returncode == 0, done.stderr
    assert "1 read = 1 handled" in done.stdout


def test_own_file_of_the_demos_events(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(ORDERS[:30]), "utf-8")

    code, output = invoke(path)

    assert code == 0
    assert "30 read = 30 handled + 0 in the dead letters" in output


def test_a_line_that_is_not_utf8_stops_no_other(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_bytes("\n".join(ORDERS[:3]).encode() + b'\n{"event_type": "caf\xe9"}\n' + ORDERS[3].encode())

    code, output = invoke(path)

    assert code == 0
    assert "5 read = 4 handled + 1 in the dead letters" in output
    (row,) = (row for row in output.splitlines() if "some.jsonl:4 " in row)
    assert "unicode" in row


def test_control_sequences_and_markup_in_a_line_reach_no_terminal(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(ORDERS[0] + '\n{"event_type": "[bold]\\u001b[31mred[/nope]"}\n', "utf-8")

    code, output = invoke(path)

    assert code == 0
    assert "\x1b" not in output
    assert "[bold]" in output
    assert "[/nope]" in output


def test_many_dead_letters_are_counted_and_the_first_ones_shown(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(ORDERS[0] + "\n" + "{\n" * 60, "utf-8")

    code, output = invoke(path)

    assert code == 0
    assert "the first 20 of 60" in output
    assert output.count("some.jsonl:") == 20


def test_a_file_of_which_no_line_is_an_event_fails_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"page": "/"}\n', "utf-8")

    code, output = invoke(path)

    assert code == 1
    assert "no event_type" in output
    assert "--event MODULE:CLASS" in output


# --- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", ["bad.jsonl", "empty"]),
        (b"\n \r\n", ["bad.jsonl", "blank"]),
        (ORDERS[0].encode("utf-16"), ["bad.jsonl", "UTF-16", "iconv"]),
        (b"{}\n{}\n\x00\x01", ["bad.jsonl:3", "binary"]),
        (b"\x1f\x8b\x08\x00", ["bad.jsonl", "compressed", "gunzip"]),
        (b"{}\n[" + b"1," * (MAX_LINE // 2) + b"1]", ["bad.jsonl:2", "longer than 1,048,576 bytes"]),
    ],
    ids=["empty", "blank", "utf-16", "binary", "compressed", "one long line"],
)
def test_file_that_cannot_be_used(tmp_path: Path, content: bytes, says: list[str]) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)

    code, output = invoke(path)

    assert code == 2
    assert all(word in output for word in says)


def test_path_that_is_no_file(tmp_path: Path) -> None:
    code, output = invoke(tmp_path / "none.jsonl")
    assert (code, "no such file" in output) == (2, True)

    code, output = invoke(tmp_path)
    assert (code, "is a directory" in output) == (2, True)


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ("my_pages", ["MODULE:CLASS", "shop.events:OrderPlaced"]),
        ("./my_pages.py:PageSeen", ["--event my_pages:PageSeen"]),
        ("no_such_pages:PageSeen", ["no module no_such_pages"]),
        ("no_such.pages:PageSeen", ["no module no_such"]),
        ("my_pages:PageSean", ["my_pages has no PageSean", "PageLeft, PageSeen"]),
        ("my_pages:Plain", ["Plain is not an event class", "class Plain(Event)"]),
        ("my_pages:number", ["number is not an event class"]),
        ("cut_off:PageSeen", ["importing cut_off failed", "SyntaxError", "line 1"]),
        ("needy:PageSeen", ["importing needy failed", "no_such_thing", "needy.py, line 2"]),
    ],
)
def test_event_class_that_cannot_be_used(pages: Path, event: str, says: list[str]) -> None:
    (pages / "cut_off.py").write_text("class PageSeen(", "utf-8")
    (pages / "needy.py").write_text("\nimport no_such_thing\n", "utf-8")
    (pages / "seen.jsonl").write_text('{"page": "/"}\n', "utf-8")

    code, output = invoke("seen.jsonl", "--event", event)

    assert code == 2
    assert f"--event {event}" in output
    assert all(word in output for word in says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--broker", "kafak"], "Unknown broker 'kafak'"),
        (["--broker", "memory://demo?size=3"], "unknown option 'size'"),
        (["--topic", "my orders"], "white space"),
    ],
)
def test_broker_or_topic_that_cannot_be_used(arguments: Sequence[str], says: str) -> None:
    code, output = invoke(*arguments)

    assert code == 2
    assert says in output


def test_a_password_in_the_brokers_url_is_not_shown() -> None:
    _, output = invoke("--broker", "nobroker://me:s3cret@host/")

    assert "s3cret" not in output


def test_a_line_that_the_broker_refuses_is_named(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(ORDERS[:3]), "utf-8")

    code, output = invoke(path, "--broker", "memory://small?max_message_bytes=650")

    assert code == 1
    assert "some.jsonl:1: the broker did not take the line" in output


# --- what goes wrong under way ---------------------------------------------------------------------------------


def test_lines_that_get_lost_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lose(self: Scenario, consumer: object) -> None:
        pass

    move = _UnderWay._move

    async def move_or_lose_patience(self: _UnderWay) -> None:
        """At once where all that can move has moved, however long that took."""
        monkeypatch.setattr(_scenario, "_PATIENCE", 0.2 if set(self.lines) <= set(BROKEN) else 60.0)
        await move(self)

    monkeypatch.setattr(Scenario, "_collect", lose)
    monkeypatch.setattr(_UnderWay, "_move", move_or_lose_patience)

    code, output = invoke()

    assert code == 1
    assert f"{len(BROKEN)} of {len(ORDERS)} lines were neither handled nor found in the dead letters" in output
    assert "orders.jsonl:41" in output


def test_a_message_that_comes_twice_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settle = MemoryBroker.settle
    seen: set[tuple[int | None, int | None]] = set()

    def forgetful(self: MemoryBroker, settlements: Sequence[Settlement]) -> None:
        """Each first acknowledgement of an event is lost, as by a broker that went away."""
        for settlement in settlements:
            place = settlement.delivery.partition, settlement.delivery.offset
            if settlement.delivery.topic == "demo" and place not in seen:
                seen.add(place)
                settlement = settlement._replace(outcome=Outcome.NACK, delay=0.0)
            settle(self, [settlement])

    monkeypatch.setattr(MemoryBroker, "settle", forgetful)

    result, _ = run()

    assert len(seen) > 0
    assert result.done == result.lines == len(ORDERS)
    assert result.handled.total() == len(VALID)


@pytest.fixture
def _sigint_is_heard() -> Iterator[None]:
    """By the processes that are started: a run of tests in a shell's background ignores it, and they would, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.usefixtures("_sigint_is_heard")
def test_interrupting_ends_it_cleanly(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text("\n".join(ORDERS * 150), "utf-8")
    with subprocess.Popen(
        [*command, "demo", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "interrupted" in complaint
    assert "Traceback" not in complaint


class Padded(Event):
    event_type = "demo-test.padded"
    number: int
    padding: str


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    lines, padding = 10_000, "x" * 2_000
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f'{{"number": {number}, "padding": "{padding}"}}\n' for number in range(lines))
    most = 0

    def watch(result: Result) -> None:
        nonlocal most
        most = max(most, result.lines - result.done)

    tracemalloc.start()
    try:
        with open_lines(path) as file_of_lines:
            scenario = Scenario(file_of_lines, Padded, OrderDesk(), broker="memory://large?retain=0", topic="large")
            result = asyncio.run(scenario.run(watch))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert result.handled.total() == lines
    assert 0 < most < 2_500
    assert peak < path.stat().st_size / 2


# --- other distributions ---------------------------------------------------------------------------------------


def test_other_distributions_show_what_they_make_of_the_same_events(
    other: Callable[[Callable[[Sequence[Event]], Sequence[str]]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commons_events.cli._demo.names", lambda group: [n for n in names(group) if n == "a-test"])
    given: list[Event] = []

    def show(events: Sequence[Event]) -> list[str]:
        given.extend(events)
        return ["it [b]has[/b] been seen"]

    other(show)
    code, output = invoke()
    assert code == 0
    assert "it [b]has[/b] been seen" in output
    assert Counter(event.event_type for event in given) == Counter(event["event_type"] for event in VALID)


def test_another_distribution_that_fails_is_named(
    other: Callable[[Callable[[Sequence[Event]], Sequence[str]]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commons_events.cli._demo.names", lambda group: [n for n in names(group) if n == "a-test"])

    def show(events: Sequence[Event]) -> list[str]:
        raise LookupError("no database")

    other(show)
    code, output = invoke()
    assert code == 1
    assert "what 'a-test' shows failed: LookupError: no database" in output
