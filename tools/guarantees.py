"""Writes the tables of docs/guarantees.md: what holds on which broker, and what shows it; `--check` tells of drift.

They are made of what the transports claim (`Capabilities`), of the contract suite's tests with their first words, and
of the classes by which each package takes a contract over.
"""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

from commons_events.transport import Capabilities, Transport, TransportSettings
from tools.workspace import ROOT, TESTING, Package, package_named, with_modules

PAGE = ROOT / "docs" / "guarantees.md"
BEGIN, END = "<!-- begin: python -m tools.guarantees -->\n", "<!-- end -->"
CONTRACTS = {
    "RouterContract": "Handlers",
    "ConsumerContract": "Consumers",
    "ProducerContract": "Producers",
    "TransportContract": "Transports",
}
TITLES = {"memory": "in process", "kafka": "Kafka", "rabbitmq": "RabbitMQ", "pubsub": "Google Pub/Sub", "aws": "AWS"}
SHOWN = 3


@dataclass
class Broker:
    """A transport of this tree, and the tests of its package."""

    package: Package
    name: str
    capabilities: Capabilities

    @property
    def title(self) -> str:
        return TITLES.get(self.name, self.name)

    def lacks(self, capability: str) -> bool:
        """Whether a capability is not claimed, as the contract's ``requires`` sees it."""
        return getattr(self.capabilities, capability) in (None, False, "none")


@dataclass
class Promise:
    """What a test of a contract shows."""

    name: str
    says: str
    requires: list[str] = field(default_factory=list)


def brokers() -> list[Broker]:
    """The transports of all packages, core's first; one that has several schemes counts once."""
    found: dict[type[Transport], Broker] = {}
    for package in with_modules():
        for scheme, value in package.project.get("entry-points", {}).get("commons_events.transports", {}).items():
            cls = importlib.metadata.EntryPoint(scheme, value, "commons_events.transports").load()
            if cls not in found:
                transport = cls.from_settings(TransportSettings(url=f"{scheme}://localhost"))
                found[cls] = Broker(package, cls.name, transport.capabilities)
    return list(found.values())


# --- the contract suite ----------------------------------------------------------------------------------------------


@cache
def suite() -> dict[str, ast.ClassDef]:
    """The classes of the contract suite."""
    folder = package_named(TESTING).src / "commons_events" / "testing" / "contracts"
    return {cls.name: cls for path in sorted(folder.glob("*.py")) for cls in classes(path)}


def classes(path: Path) -> Iterator[ast.ClassDef]:
    return (each for each in ast.parse(path.read_text("utf-8")).body if isinstance(each, ast.ClassDef))


def family(name: str, known: dict[str, ast.ClassDef]) -> list[ast.ClassDef]:
    """A class and its bases, the bases first, as far as they are known."""
    cls = known.get(name)
    if cls is None:
        return []
    above = [each for base in cls.bases for each in family(ast.unparse(base), known)]
    return [*dict.fromkeys(above), cls]


def methods(cls: ast.ClassDef) -> list[ast.AsyncFunctionDef | ast.FunctionDef]:
    return [each for each in cls.body if isinstance(each, ast.AsyncFunctionDef | ast.FunctionDef)]


def tests(contract: str) -> list[Promise]:
    """A contract's tests in their order; not the one about the suite itself."""
    helpers = {method.name: method for cls in family(contract, suite()) for method in methods(cls)}
    return [
        Promise(name, sentence(method), list(dict.fromkeys(needs(method, helpers))))
        for name, method in helpers.items()
        if name.startswith("test_") and name != "test_contract_is_complete"
    ]


def needs(
    method: ast.AST, helpers: dict[str, ast.AsyncFunctionDef | ast.FunctionDef], seen: frozenset[str] = frozenset()
) -> Iterator[str]:
    """The capabilities without which a test is left out, also by the helpers that it calls."""
    for node in ast.walk(method):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id == "requires":
            yield from (str(each.value) for each in node.args if isinstance(each, ast.Constant))
        elif isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "self":
            called = node.func.attr
            if called in helpers and called not in seen:
                yield from needs(helpers[called], helpers, seen | {called})


def asked_of(method: ast.AST) -> set[str]:
    """The capabilities that a test looks at."""
    return {
        node.attr
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("capabilities")
    }


def sentence(method: ast.AsyncFunctionDef | ast.FunctionDef) -> str:
    text = " ".join((ast.get_docstring(method) or "").split())
    said = method.name.removeprefix("test_").replace("_s_", "'s_").replace("_", " ")
    return f"**{said}**: {text}" if text else f"**{said}**"


# --- who takes it over -----------------------------------------------------------------------------------------------


def takers(broker: Broker, contract: str) -> list[list[ast.ClassDef]]:
    """The broker's test classes that take a contract over, each with its bases."""
    found = []
    for path in sorted((broker.package.folder / "tests" / "contract").glob("test_*.py")):
        known = {cls.name: cls for cls in classes(path)}
        for cls in known.values():
            bases = {ast.unparse(base) for each in family(cls.name, known) for base in each.bases}
            if cls.name.startswith("Test") and contract in bases:
                found.append(family(cls.name, known))
    return found


def excuse(taker: list[ast.ClassDef], test: str) -> str | None:
    """Why a class leaves a test out, where it does."""
    for method in (method for cls in taker for method in methods(cls) if method.name == test):
        for decorator in method.decorator_list:
            if isinstance(decorator, ast.Call):
                for keyword in decorator.keywords:
                    if keyword.arg == "reason" and isinstance(keyword.value, ast.Constant):
                        return str(keyword.value.value)
    return None


def holds(broker: Broker, contract: str, test: Promise) -> str:
    """A cell: whether a test's promise holds on a broker."""
    taken_over = takers(broker, contract)
    if not taken_over:
        return "not tested"
    lacking = [name for name in test.requires if broker.lacks(name)]
    if lacking:
        return "no " + ", ".join(f"`{name}`" for name in lacking)
    excuses = [excuse(taker, test.name) for taker in taken_over]
    if all(excuses):
        return f"no: {excuses[0]}"
    return "yes"


# --- the page --------------------------------------------------------------------------------------------------------


def row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def header(*names: str) -> str:
    return row(*names) + row(*("---" for _ in names))


def word(claim: object) -> str:
    if claim is None:
        return "none known"
    if isinstance(claim, bool):
        return "yes" if claim else "no"
    return f"{claim:,}" if isinstance(claim, int) else str(claim)


def meanings() -> dict[str, str]:
    """What stands below each field of `Capabilities`."""
    found = re.findall(
        r'^    (\w+): [^\n]*= None\n    """(.*?)"""', inspect.getsource(Capabilities), re.DOTALL | re.MULTILINE
    )
    return {name: " ".join(text.split()) for name, text in found}


def capability_table(of: list[Broker]) -> str:
    shown: dict[str, list[str]] = {}
    for contract in CONTRACTS:
        helpers = {method.name: method for cls in family(contract, suite()) for method in methods(cls)}
        for test in tests(contract):
            for name in {*test.requires, *asked_of(helpers[test.name])}:
                shown.setdefault(name, []).append(f"`{test.name}`")
    text = header("capability", *(broker.title for broker in of), "what it says", "shown by")
    for claim in fields(Capabilities):
        if claim.name != "contract":
            by = list(dict.fromkeys(shown.get(claim.name, [])))
            more = f" and {len(by) - SHOWN} more" if len(by) > SHOWN else ""
            claims = [word(getattr(broker.capabilities, claim.name)) for broker in of]
            text += row(f"`{claim.name}`", *claims, meanings()[claim.name], ", ".join(by[:SHOWN]) + more)
    return text


def contract_table(of: list[Broker], contract: str) -> str:
    text = header("what holds", *(broker.title for broker in of), "shown by")
    for test in tests(contract):
        text += row(test.says, *(holds(broker, contract, test) for broker in of), f"`{test.name}`")
    return text


def fault_table() -> str:
    """Tests that kill and freeze real servers and processes, by their names."""
    text = header("what happens", "where", "shown by")
    for package in with_modules():
        for path in sorted((package.folder / "tests" / "integration").glob("test_*faults.py")):
            for node in ast.parse(path.read_text("utf-8")).body:
                if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and node.name.startswith("test_"):
                    what = node.name.removeprefix("test_").replace("_", " ")
                    who = "through a router" if "router" in path.stem else "a consumer"
                    text += row(what, f"{package.short}, {who}", f"`{path.name}::{node.name}`")
    return text


def tables() -> str:
    of = brokers()
    parts = ["## What the brokers claim\n\n" + capability_table(of)]
    for contract, title in CONTRACTS.items():
        run = ", ".join(
            f"{broker.title} by {', '.join(f'`{taker[-1].name}`' for taker in takers(broker, contract))}"
            for broker in of
            if takers(broker, contract)
        )
        parts.append(f"## {title}\n\n`{contract}`: {run}.\n\n" + contract_table(of, contract))
    parts.append("## When servers and processes die\n\n" + fault_table())
    return "\n".join(parts)


def page() -> str:
    """What docs/guarantees.md has to be."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + tables() + END + after


def main(arguments: list[str]) -> int:
    drifted = page() != PAGE.read_text(encoding="utf-8")
    if arguments == ["--check"]:
        return int(drifted)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
