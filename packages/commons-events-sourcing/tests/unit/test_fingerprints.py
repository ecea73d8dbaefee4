"""The fingerprint of an aggregate class: whatever changes what handlers do changes it, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from commons_events.plugins import serializer
from commons_events.sourcing import _fingerprint
from commons_events.sourcing._snapshots import state_codec

HEAD = """
import functools, operator, re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, ClassVar
from pydantic import AfterValidator, BaseModel, Field, PrivateAttr
from commons_events.sourcing import AggregateRoot, DomainEvent
"""
EVENT = """
class Moved(DomainEvent):
    amount: int
"""
AGGREGATE = """
class Account(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.total: Any = 0
"""
HANDLES = "    def handle_moved(self, event): "
USES_K = EVENT + AGGREGATE + HANDLES + "self.total += event.amount * {}\n"
CALLS_F = EVENT + AGGREGATE + HANDLES + "self.total += f(event.amount)\n"

CHANGES = {
    "handler": (USES_K.format("2"), "* 2", "* 3"),
    "int": ("K = 2" + USES_K.format("K"), "K = 2", "K = 3"),
    "tuple": ("K = (1, (2,))" + USES_K.format("K[1][0]"), "(2,)", "(3,)"),
    "dict": ("K = {'a': 2}" + USES_K.format("K['a']"), "'a': 2", "'a': 3"),
    "Decimal": ("K = Decimal('2.0')" + USES_K.format("K"), "2.0", "2.00"),
    "timedelta": ("K = timedelta(2)" + USES_K.format("K.days"), "timedelta(2)", "timedelta(3)"),
    "Enum": ("class K(Enum):\n    A = 2" + USES_K.format("K.A.value"), "A = 2", "A = 3"),
    "pattern": ("K = re.compile('a')" + USES_K.format("len(K.findall('a'))"), "compile('a')", "compile('b')"),
    "getter": ("K = operator.itemgetter(0)" + USES_K.format("K([1, 2])"), "(0)", "(1)"),
    "object": (
        "class R:\n    def __init__(self, k): self.k = k\nK = R(2)" + USES_K.format("K.k"), "R(2)", "R(3)"
    ),
    "bound method": ("K = {'a': 2}.get" + USES_K.format("K('a')"), "'a': 2", "'a': 3"),
    "function": ("def f(x): return x * 2" + CALLS_F, "* 2", "* 3"),
    "function's constant": ("K = (2,)\ndef f(x): return x * K[0]" + CALLS_F, "(2,)", "(3,)"),
    "function's function": ("def g(x): return x * 2\ndef f(x): return [g(y) for y in [x]][0]" + CALLS_F, "* 2", "* 3"),
    "functions that call each other": (
        "def g(x): return f(x - 2) if x > 0 else 0\ndef f(x): return g(x)" + CALLS_F, "- 2", "- 3"
    ),
    "lambda": ("f = lambda x: x * 2" + CALLS_F, "* 2", "* 3"),
    "function's default": ("def f(x, k=2): return x * k" + CALLS_F, "k=2", "k=3"),
    "keyword's default": ("def f(x, *, k=2): return x * k" + CALLS_F, "k=2", "k=3"),
    "cached function": ("@functools.lru_cache\ndef f(x): return x * 2" + CALLS_F, "* 2", "* 3"),
    "partial": ("def g(k, x): return x * k\nf = functools.partial(g, 2)" + CALLS_F, "g, 2", "g, 3"),
    "singledispatch": (
        "@functools.singledispatch\ndef f(x): ...\n@f.register\ndef _(x: int): return x * 2" + CALLS_F, "* 2", "* 3"
    ),
    "closures that change places": (
        "def make(k): return lambda x: x - k\na, b = make(1), make(2)\ndef f(x): return a(b(x) * 2)" + CALLS_F,
        "make(1), make(2)",
        "make(2), make(1)",
    ),
    "class": ("class f:\n    def __new__(cls, x): return x * 2" + CALLS_F, "* 2", "* 3"),
    "base of a class": ("class g:\n    def __new__(cls, x): return x * 2\nclass f(g): pass" + CALLS_F, "* 2", "* 3"),
    "dataclass's default": ("@dataclass\nclass D:\n    k: int = 2" + USES_K.format("D().k"), "= 2", "= 3"),
    "dataclass's factory": (
        "@dataclass\nclass D:\n    k: int = field(default_factory=lambda: 2)" + USES_K.format("D().k"), ": 2", ": 3"
    ),
    "model's default": ("class D(BaseModel):\n    k: int = 2" + USES_K.format("D().k"), "= 2", "= 3"),
    "model's private attribute": (
        "class D(BaseModel):\n    _k: int = PrivateAttr(2)" + USES_K.format("D()._k"), "(2)", "(3)"
    ),
    "class's int": (USES_K.format("self.K") + "    K = 2\n", "K = 2", "K = 3"),
    "class's Decimal": (USES_K.format("self.K") + "    K: ClassVar = Decimal(2)\n", "l(2)", "l(3)"),
    "class's dict": (USES_K.format("self.K['a']") + "    K = {'a': [2]}\n", "[2]", "[3]"),
    "method": (USES_K.format("self.k()") + "    def k(self): return 2\n", "return 2", "return 3"),
    "static method": (USES_K.format("self.k()") + "    @staticmethod\n    def k(): return 2\n", "return 2", "return 3"),
    "property": (USES_K.format("self.k") + "    @property\n    def k(self): return 2\n", "return 2", "return 3"),
    "cached property": (
        USES_K.format("self.k") + "    @functools.cached_property\n    def k(self): return 2\n", "return 2", "return 3"
    ),
    "operator": (USES_K.format("(self + 1)") + "    def __add__(self, x): return x * 2\n", "x * 2", "x * 3"),
    "name as text": (USES_K.format("getattr(self, '_k')()") + "    def _k(self): return 2\n", "return 2", "return 3"),
    "name as text in a constant": (
        USES_K.format("getattr(self, self.NAMES[0])()") + "    NAMES = ('_k',)\n    def _k(self): return 2\n",
        "return 2",
        "return 3",
    ),
    "table of functions": (
        USES_K.format("self._table['x'](self)") + "    def _x(self): return 2\n    _table = {'x': _x}\n",
        "return 2",
        "return 3",
    ),
    "handler's default": (EVENT + AGGREGATE + "    def handle_moved(self, event, k=2): ...\n", "k=2", "k=3"),
    "decorated handler": (
        "def log(f):\n    @functools.wraps(f)\n    def inner(*args): return f(*args)\n    return inner\n"
        + (EVENT + AGGREGATE + "    @log\n    def handle_moved(self, event): self.total += event.amount * 2\n"),
        "* 2",
        "* 3",
    ),
    "decorator": (
        "def twice(f):\n    return lambda *args: [f(*args) for _ in range(2)]\n"
        + (EVENT + AGGREGATE + "    @twice\n    def handle_moved(self, event): ...\n"),
        "range(2)",
        "range(3)",
    ),
    "partialmethod": (
        EVENT + AGGREGATE + "    def m(self, e, k): ...\n    handle_moved = functools.partialmethod(m, k=2)\n",
        "k=2",
        "k=3",
    ),
    "singledispatchmethod": (
        EVENT + AGGREGATE + "    @functools.singledispatchmethod\n    def handle_moved(self, event): self.total = 2\n",
        "= 2",
        "= 3",
    ),
    "closure": (
        EVENT + "def make(k):\n    def handle(self, event): self.total += k\n    return handle\n"
        + (AGGREGATE + "    handle_moved = make(2)\n"),
        "make(2)",
        "make(3)",
    ),
    "base class": (
        EVENT + "class Base(AggregateRoot):\n    def handle_moved(self, event): self.total += 2\n"
        + AGGREGATE.replace("AggregateRoot", "Base"),
        "+= 2",
        "+= 3",
    ),
    "mixin": (
        EVENT + "class Base:\n    def handle_moved(self, event): self.total += 2\n"
        + AGGREGATE.replace("AggregateRoot", "Base, AggregateRoot"),
        "+= 2",
        "+= 3",
    ),
    "event's property": (
        EVENT + "    @property\n    def k(self): return 2\n" + AGGREGATE + HANDLES + "event.k\n",
        "return 2",
        "return 3",
    ),
    "event's default": (EVENT + "    k: int = 2\n" + AGGREGATE + HANDLES + "...\n", "= 2", "= 3"),
    "event in the class": (
        AGGREGATE + "    class Moved(DomainEvent):\n        k: int = 2\n" + HANDLES + "...\n", "= 2", "= 3"
    ),
    "derived event": (
        EVENT + "class Far(Moved):\n    k: int = 2\n" + AGGREGATE + HANDLES + "...\n", "= 2", "= 3"
    ),
    "event by its annotation": (
        "class events:\n    class Moved(DomainEvent):\n        k: int = 2\n"
        + (AGGREGATE + "    def handle_moved(self, event: events.Moved): ...\n"),
        "= 2",
        "= 3",
    ),
    "attribute's type": (AGGREGATE + "    total: dict[int, str]\n", "int, str", "str, str"),
    "attribute's class": (
        "class Line(BaseModel):\n    k: int = 2\n" + AGGREGATE + "    lines: list[Line]\n", "= 2", "= 3"
    ),
    "attribute's validator": (
        "def f(x): return x * 2\n" + AGGREGATE + "    total: Annotated[int, AfterValidator(f)]\n", "* 2", "* 3"
    ),
    "snapshot_version": (AGGREGATE + "    snapshot_version = 2\n", "= 2", "= 3"),
}  # fmt: skip
"""A program, and a change of it that its snapshots have to notice."""

NO_CHANGES = {
    "line": (USES_K.format("2"), HEAD, HEAD + "\n\n"),
    "command": (USES_K.format("2") + "    def move(self): return 2\n", "return 2", "return 3"),
    "function of a command": (
        "def f(x): return x * 2" + USES_K.format("2") + "    def move(self): return f(3)\n",
        "x * 2",
        "x * 3",
    ),
    "other global": ("other = 2" + USES_K.format("self.other"), "other = 2", "other = 3"),
    "other event": (USES_K.format("2") + "class Paid(DomainEvent):\n    k: int = 2\n", "k: int = 2", "k: int = 3"),
    "other aggregate": (USES_K.format("2") + "class Other(AggregateRoot):\n    k = 2\n", "k = 2", "k = 3"),
}


def run(text: str, name: str = "program_of_a_fingerprint") -> Any:
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, f"{name}.py", "exec"), vars(module))
    return module


def of(text: str) -> str:
    return state_codec(run(text).Account).fingerprint


@pytest.fixture(autouse=True)
def no_module(event_registry: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "program_of_a_fingerprint", types.ModuleType(""))
    monkeypatch.setitem(sys.modules, "helpers_of_a_fingerprint", types.ModuleType(""))


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_what_handlers_use_is_noticed(name: str) -> None:
    text, before, after = CHANGES[name]
    assert text.count(before) >= 1
    assert of(HEAD + text) == of(HEAD + text)
    assert of(HEAD + text) != of(HEAD + text.replace(before, after))


@pytest.mark.parametrize("name", NO_CHANGES)
def test_a_change_of_something_else_is_none(name: str) -> None:
    text, before, after = NO_CHANGES[name]
    assert before in HEAD + text
    assert of(HEAD + text) == of((HEAD + text).replace(before, after))


def test_functions_of_the_program_s_other_modules_are_followed() -> None:
    text = HEAD + "import helpers_of_a_fingerprint as helpers" + USES_K.format("helpers.f()")
    run("K = 2\ndef f(): return K\ndef g(): return 2", "helpers_of_a_fingerprint")
    before = of(text)
    run("K = 2\ndef f(): return K\ndef g(): return 3", "helpers_of_a_fingerprint")
    assert of(text) == before
    run("K = 3\ndef f(): return K\ndef g(): return 2", "helpers_of_a_fingerprint")
    assert of(text) != before


@pytest.mark.parametrize(("library", "noticed"), [("sqlalchemy", True), ("hypothesis", False)])
def test_a_library_that_is_used_counts_by_its_version(
    library: str, noticed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HEAD + "from sqlalchemy import Column\nimport hypothesis" + USES_K.format("Column('x')")
    before = of(text)
    version_of = _fingerprint._version_of
    monkeypatch.setattr(_fingerprint, "_version_of", lambda name: "99" if name == library else version_of(name))
    assert (of(text) != before) is noticed


PROGRAM = (
    HEAD
    + """
import importlib.util, logging, random, sys, threading
from os import environ
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
lazy = importlib.util.find_spec("helpers")
lazy.loader = importlib.util.LazyLoader(lazy.loader)
lazy, lazy_spec = importlib.util.module_from_spec(lazy), lazy
sys.modules["helpers"] = lazy
lazy_spec.loader.exec_module(lazy)
class Base(DeclarativeBase): pass
class Row(Base):
    __tablename__ = "row"
    id: Mapped[int] = mapped_column(primary_key=True)
class Color(Enum):
    RED = "red"; BLUE = "blue"
class Node:
    def __init__(self): self.other, self.rate, self.lock = None, Decimal(2), threading.Lock()
A, B = Node(), Node()
A.other, B.other = B, A
CIRCLE = [Node() for _ in range(8)]
for i, node in enumerate(CIRCLE): node.rate, node.other = i, {CIRCLE[i - 1], CIRCLE[i - 2]}
def check(value): return value
def times(k): return lambda x: x * k
K = (logging.getLogger("x"), random.Random(), {Color.RED, Color.BLUE}, frozenset("abc"), {int, str, Node}, A,
     {"a": times(2), "b": [times(3)]}, Node.__init__, check.__get__(A), {("one",), ("two",)}, {*CIRCLE}, Row, Row.id,
     environ)
def one(): return A
def two(): return B
@functools.lru_cache
def cached(x): return x
@functools.singledispatch
def dispatched(x): return x
class Moved(DomainEvent):
    amount: Annotated[int, AfterValidator(check), Field(gt=0)] = 1
    made: Any = Field(default_factory=lambda: [])
class Account(AggregateRoot):
    total: Annotated[int, AfterValidator(check)]
    calls: Callable[[], int] | dict[Color, set[str]]
    def handle_moved(self, event: Moved) -> None:
        self.total = cached(dispatched(event.amount)) if event.amount in {"a", "b", "c", "one", "two"} else K
        one(), two(), K, lazy.rate()
    def one(self): return A
    def two(self): return B
"""
)


def test_every_process_finds_the_same(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "helpers.py").write_text("def rate(): return 2\ndef other(): return 3\n")
    used = "Moved(aggregate_id='a').serialize(); cached(1); dispatched(2); K[1].random(); lazy.rate(); Row(id=1); "
    script = (
        "from program import *; {}from commons_events.sourcing._snapshots import state_codec; "
        "print(state_codec(Account).fingerprint)"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", script.format(what)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed, "HOSTNAME": seed, "PYTHONDONTWRITEBYTECODE": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for what, seed in (("", "1"), (used, "2"))  # the second one reads the first one's compiled file
    ]
    assert len(found[0]) > 10
    assert found[0] == found[1]


def test_a_process_that_is_spawned_finds_what_the_main_one_does(tmp_path: Path) -> None:
    program = (
        HEAD
        + USES_K.format("2")
        + """
def show():
    from commons_events.sourcing._snapshots import state_codec
    print(state_codec(Account).fingerprint, flush=True)
if __name__ == "__main__":
    import multiprocessing
    show()
    process = multiprocessing.get_context("spawn").Process(target=show)
    process.start()
    process.join()
"""
    )
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, check=True
    )
    one, other = done.stdout.split()
    assert one == other


@pytest.mark.parametrize(("format", "library"), [("avro", "avro"), ("protobuf", "google.protobuf")])
def test_what_a_format_keeps_at_an_event_class_changes_nothing(format: str, library: str) -> None:
    pytest.importorskip(library)
    module = run(HEAD + USES_K.format("2"))
    before = _fingerprint.fingerprint(module.Account, {})
    serializer(format).encode(module.Moved(aggregate_id="a", amount=1))
    assert _fingerprint.fingerprint(module.Account, {}) == before


DEEP = """
class Node:
    def __init__(self, rate): self.rate, self.others = rate, []
K = [Node(i) for i in range(2_000)]
for i, node in enumerate(K): node.others = {K[i - 1], K[i // 2]}
"""


def test_values_may_lie_as_deep_in_each_other_as_they_like() -> None:
    text = HEAD + DEEP + USES_K.format("len(K)")

    def further_down(frames: int) -> str:
        return further_down(frames - 1) if frames else of(text)

    assert of(text) == further_down(300)
    assert of(text) != of(text.replace("Node(i)", "Node(i if i != 1_000 else 0)"))


def test_a_handler_that_is_mocked_can_be_looked_at() -> None:
    module = run(HEAD + USES_K.format("2"))
    with patch.object(module.Account, "handle_moved"):
        assert _fingerprint.fingerprint(module.Account, {}) != of(HEAD + USES_K.format("2"))
