"""Avro: the specification's schema resolution (1.12), as Java's SchemaCompatibility and Confluent's registry apply it.

Two schemas may refer to themselves and to each other's names, so that a pair of them may be asked about while it is
still being answered. All pairs start as compatible; one that is not takes those along that depend on it, until nothing
changes any more. No step is recursive.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from commons_events.compatibility._avro_schema import fullname_aliases, kind, parse
from commons_events.compatibility._violation import Violation

__all__ = ["violations"]

_PROMOTIONS = (
    ("int", "long"),
    ("int", "float"),
    ("int", "double"),
    ("long", "float"),
    ("long", "double"),
    ("float", "double"),
    ("string", "bytes"),
    ("bytes", "string"),
)
"""Writer's type, reader's type: "Schema Resolution" in the specification."""
_NAMED = frozenset({"record", "enum", "fixed"})
_SHOWN = 10


def violations(
    reader: str,
    writer: str,
    *,
    reader_imports: Mapping[str, str] | None = None,
    writer_imports: Mapping[str, str] | None = None,
) -> list[Violation]:
    """Why a reader with the first schema cannot read all that was written with the second; empty where it can.

    Raises:
        InvalidSchemaError: one of them is no Avro schema.
        MissingDistributionError: the `avro` library is not installed.
    """
    return _Comparison().run(parse(reader, reader_imports), parse(writer, writer_imports))


@dataclass(slots=True)
class _Pair:
    """A reader's and a writer's schema, and what their compatibility depends on."""

    reader: Any
    writer: Any
    own: list[tuple[str, str, str, str]] = field(default_factory=list)
    """What is wrong with these two themselves: path below this pair, rule, message, advice."""
    parts: list[tuple[str, _Pair]] = field(default_factory=list)
    """What has to be compatible too: all of them, or for a reader's union one of them."""
    is_choice: bool = False
    compatible: bool = True

    def holds(self) -> bool:
        if self.own:
            return False
        verdicts = (part.compatible for _, part in self.parts)
        return any(verdicts) if self.is_choice else all(verdicts)


class _Comparison:
    def __init__(self) -> None:
        self._pairs: dict[tuple[int, int], _Pair] = {}
        self._new: deque[_Pair] = deque()
        self._branches: dict[int, dict[tuple[str, str], list[Any]]] = {}

    def run(self, reader: Any, writer: Any) -> list[Violation]:
        root = self._pair(reader, writer)
        dependents: dict[int, list[_Pair]] = defaultdict(list)
        changed: deque[_Pair] = deque()
        while self._new:
            pair = self._new.popleft()
            self._compare(pair)
            for _, part in pair.parts:
                dependents[id(part)].append(pair)
            changed.append(pair)
        while changed:
            pair = changed.popleft()
            if pair.compatible and not pair.holds():
                pair.compatible = False
                changed.extend(dependents[id(pair)])
        return _collect(root)

    def _pair(self, reader: Any, writer: Any) -> _Pair:
        """The pair of these schemas; the parsed schemas outlive this, so that their ids stay theirs."""
        key = (id(reader), id(writer))
        if key not in self._pairs:
            self._pairs[key] = _Pair(reader, writer)
            self._new.append(self._pairs[key])
        return self._pairs[key]

    def _compare(self, pair: _Pair) -> None:
        reader, writer = pair.reader, pair.writer
        reads, writes = kind(reader), kind(writer)
        if writes == "union":
            pair.parts = [(f"/{i}", self._pair(reader, branch)) for i, branch in enumerate(writer.schemas)]
        elif reads == "union":
            pair.is_choice = True
            pair.parts = [("", self._pair(branch, writer)) for branch in self._candidates(reader, writer)]
        elif reads != writes:
            if (writes, reads) not in _PROMOTIONS or _is_decimal(reader) or _is_decimal(writer):
                pair.own.append(_type_mismatch(reader, writer))
        elif reads == "array":
            pair.parts = [("/items", self._pair(reader.items, writer.items))]
        elif reads == "map":
            pair.parts = [("/values", self._pair(reader.values, writer.values))]
        elif reads in _NAMED:
            self._compare_named(pair, reads)

    def _candidates(self, union: Any, writer: Any) -> list[Any]:
        """The branches that may read what is no union itself; unions may be too large to try each with each."""
        if id(union) not in self._branches:
            index: dict[tuple[str, str], list[Any]] = defaultdict(list)
            for branch in union.schemas:
                name = kind(branch)
                if name in _NAMED:
                    for one in {branch.name, *fullname_aliases(branch)}:
                        index[name, one].append(branch)
                else:
                    index[name, ""].append(branch)
            self._branches[id(union)] = index
        index = self._branches[id(union)]
        name = kind(writer)
        if name in _NAMED:
            found = [*index.get((name, writer.name), ()), *index.get((name, writer.fullname), ())]
            return list({id(branch): branch for branch in found}.values())
        readers = [name, *(reads for writes, reads in _PROMOTIONS if writes == name)]
        return [branch for one in readers for branch in index.get((one, ""), ())]

    def _compare_named(self, pair: _Pair, name: str) -> None:
        reader, writer = pair.reader, pair.writer
        # As Java does, and differently from other implementations: namespaces need not be the same.
        if reader.name != writer.name and writer.fullname not in fullname_aliases(reader):
            pair.own.append(
                (
                    "/name",
                    "NAME_MISMATCH",
                    f"the reader's {name} is {reader.fullname}, the writer's is {writer.fullname}",
                    f"Keep the name, or give the reader's {name} the alias {writer.fullname!r}.",
                )
            )
        if name == "fixed" and reader.size != writer.size:
            pair.own.append(
                (
                    "/size",
                    "FIXED_SIZE_MISMATCH",
                    f"{reader.fullname} has {reader.size} bytes at the reader, {writer.size} at the writer",
                    "Keep the size; a value of another size is another type, in a new field.",
                )
            )
        elif name == "enum":
            _compare_symbols(pair)
        elif name == "record":
            self._compare_fields(pair)

    def _compare_fields(self, pair: _Pair) -> None:
        written = {field.name: field for field in pair.writer.fields}
        for i, read in enumerate(pair.reader.fields):
            names = dict.fromkeys([read.name, *(read.other_props.get("aliases") or ())])
            matches = [written[name] for name in names if name in written]
            if len(matches) == 1:
                pair.parts.append((f"/fields/{i}/type", self._pair(read.type, matches[0].type)))
            elif matches:
                both = ", ".join(repr(match.name) for match in matches)
                pair.own.append(
                    (
                        f"/fields/{i}",
                        "NAME_MISMATCH",
                        f"field {read.name!r} of {pair.reader.fullname} stands for several of the writer's: {both}",
                        "Leave only one name or alias that the writer has.",
                    )
                )
            elif not read.has_default:
                pair.own.append(
                    (
                        f"/fields/{i}",
                        "READER_FIELD_MISSING_DEFAULT_VALUE",
                        f"field {read.name!r} of {pair.reader.fullname} has no default, and the writer has no such "
                        "field",
                        "Give it a default; if it was renamed, its old name as an alias.",
                    )
                )


def _compare_symbols(pair: _Pair) -> None:
    reader = pair.reader
    known = set(reader.symbols)
    missing = [symbol for symbol in pair.writer.symbols if symbol not in known]
    if missing and reader.other_props.get("default") not in known:
        pair.own.append(
            (
                "/symbols",
                "MISSING_ENUM_SYMBOLS",
                f"the reader's enum {reader.fullname} lacks symbols that the writer has: {_list(missing, str)}",
                "Keep the symbols, or give the reader's enum a default, which stands for those it doesn't know.",
            )
        )


def _type_mismatch(reader: Any, writer: Any) -> tuple[str, str, str, str]:
    return (
        "",
        "TYPE_MISMATCH",
        f"the reader expects {_named(reader)}, and the writer has {_named(writer)}",
        "Keep the type, or read a union of the old and the new one.",
    )


def _is_decimal(schema: Any) -> bool:
    """Whether its bytes are a number, and so no text; Java's check does not look."""
    return getattr(schema, "logical_type", None) == "decimal"


def _list(items: Sequence[Any], name: Callable[[Any], str]) -> str:
    more = f" and {len(items) - _SHOWN:,} more" if len(items) > _SHOWN else ""
    return ", ".join(map(name, items[:_SHOWN])) + more


def _named(schema: Any) -> str:
    full = getattr(schema, "fullname", None)
    if full and full != schema.type:
        return f"{kind(schema)} {full}"
    return f"{kind(schema)} (decimal)" if _is_decimal(schema) else kind(schema)


def _collect(root: _Pair) -> list[Violation]:
    """What is wrong, from the outside inwards; each pair counts once, where it is met first."""
    found: list[Violation] = []
    seen = {id(root)}
    stack = [("#", root)]
    while stack:
        path, pair = stack.pop()
        if pair.compatible:
            continue
        found += (
            Violation(path=path + below, rule=rule, message=message, advice=advice)
            for below, rule, message, advice in pair.own
        )
        if pair.is_choice:
            found.append(_missing_branch(path, pair))
            continue
        for below, part in reversed(pair.parts):
            if id(part) not in seen:
                seen.add(id(part))
                # a path is one of the reader's schema, in which the branches of a writer's union have no place
                stack.append((path if kind(pair.writer) == "union" else path + below, part))
    return found


def _missing_branch(path: str, pair: _Pair) -> Violation:
    reasons = [message for _, part in pair.parts for _, _, message, _ in part.own]
    more = f": {reasons[0]}" if reasons else ""
    branches = _list(pair.reader.schemas, _named) or "none"
    return Violation(
        path=path,
        rule="MISSING_UNION_BRANCH",
        message=f"the reader's union ({branches}) has no branch for the writer's {_named(pair.writer)}{more}",
        advice="Keep every branch that was ever written, and add the new ones to the reader first.",
    )
