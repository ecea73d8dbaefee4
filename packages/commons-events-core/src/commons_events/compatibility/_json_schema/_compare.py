"""Comparing two schemas by Confluent's rules.

Every comparison is a generator that yields the pairs below it that it needs compared and is sent what they found. So
`compare` keeps the stack, not Python: recursive schemas end, each pair is compared once, and depth costs memory alone.

A pair that is met again below itself is taken for compatible. That may prove wrong further on, so the whole is
compared again with what was found broken, until no more is: the greatest fixed point.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from commons_events.compatibility._json_schema import _containers, _values
from commons_events.compatibility._json_schema._differences import Outcome
from commons_events.compatibility._json_schema._matching import matching
from commons_events.compatibility._json_schema._nodes import (
    Anything,
    Array,
    Combined,
    Constant,
    Enumeration,
    Link,
    Node,
    Not,
    Nothing,
    Number,
    Object,
    Text,
    describe,
)
from commons_events.errors import InvalidSchemaError

__all__ = ["compare"]

Steps = Generator[tuple[Link, Link], Outcome, None]
Pair = tuple[int, int]

_MOST_PAIRS = 500_000
"""A union of 700 types against another one: more than the largest schemas in use have."""


class _Frame(NamedTuple):
    outcome: Outcome
    steps: Steps


def compare(writer: Link, reader: Link, *, lenient: bool) -> Outcome:
    """What differs between what a writer's schema allows and what a reader's schema takes.

    Raises:
        InvalidSchemaError: there are more pairs to compare than any schema in use has.
    """
    known: dict[Pair, Outcome] = {}
    budget = _MOST_PAIRS
    while True:
        run = _Run(lenient, known, budget)
        outcome = run.compare(writer, reader)
        budget = run.budget
        broken = {pair: found for pair, found in run.found.items() if found.breaks}
        if not run.assumed or broken.keys() == known.keys():
            return outcome
        known = broken


class _Run:
    """One comparison of all pairs, given those that are known to be broken."""

    def __init__(self, lenient: bool, known: dict[Pair, Outcome], budget: int) -> None:
        self.found: dict[Pair, Outcome] = {}
        self.assumed = False
        self.budget = budget
        self._lenient = lenient
        self._known = known
        self._open: set[Pair] = set()
        self._stack: list[_Frame] = []

    def compare(self, writer: Link, reader: Link) -> Outcome:
        answer = self._ask(writer, reader)
        while self._stack:
            frame = self._stack[-1]
            try:
                # None starts a generator
                request = next(frame.steps) if answer is None else frame.steps.send(answer)
            except StopIteration:
                self._stack.pop()
                self._open.discard(frame.outcome.pair)
                answer = self.found[frame.outcome.pair] = frame.outcome
            else:
                answer = self._ask(*request)
        assert answer is not None
        return answer

    def _ask(self, writer: Link, reader: Link) -> Outcome | None:
        """What is known of a pair; where nothing is, it is put on the stack."""
        one, other = writer.target, reader.target
        pair = (id(one), id(other))
        if pair in self.found:
            return self.found[pair]
        if pair in self._open:
            if pair in self._known:
                return self._known[pair]
            self.assumed = True
            return Outcome(pair, self._lenient)
        self.budget -= 1
        if self.budget < 0:
            raise InvalidSchemaError(
                f"The schemas have more than {_MOST_PAIRS:,} pairs of parts to compare. Make their unions smaller."
            )
        self._open.add(pair)
        outcome = Outcome(pair, self._lenient)
        self._stack.append(_Frame(outcome, _pair(outcome, one, other)))
        return None


def _pair(out: Outcome, writer: Node, reader: Node) -> Steps:
    found = yield from _one_with_union(writer, reader)
    if found is not None:
        outcome, rule = found
        out.include(outcome)
        if rule:
            out.note(rule)
        return
    if type(writer) is not type(reader):
        if not (isinstance(writer, Nothing) or isinstance(reader, Anything) or _both_bytes(writer, reader)):
            out.add(
                "TYPE_CHANGED",
                "",
                f"the writer's {describe(writer)} is not the reader's {describe(reader)}",
                f"Keep {describe(writer)}, or a union that has it as a member.",
            )
        return
    for rule, before, after in (
        ("ID_CHANGED", writer.id, reader.id),
        ("TITLE_CHANGED", writer.title, reader.title),
        ("DESCRIPTION_CHANGED", writer.description, reader.description),
        ("DEFAULT_CHANGED", writer.default, reader.default),
    ):
        if before != after:
            out.note(rule)
    kind = _KINDS.get(type(writer))
    if kind is not None:
        steps = kind(out, writer, reader)
        if steps is not None:
            yield from steps


def _both_bytes(writer: Node, reader: Node) -> bool:
    """Kafka Connect writes bytes in two ways that Confluent takes for one."""
    return all(isinstance(n.raw, dict) and n.raw.get("connect.type") == "bytes" for n in (writer, reader))


# --- unions ----------------------------------------------------------------------------------------------------


def _one_with_union(
    writer: Node, reader: Node
) -> Generator[tuple[Link, Link], Outcome, tuple[Outcome, str | None] | None]:
    """Where one side is a union: the member that fits the other side, and the rule that lets it; or None."""
    if isinstance(writer, Combined) == isinstance(reader, Combined):
        return None
    if isinstance(reader, Combined):
        pairs = [(Link(None, writer), member) for member in reader.members]
        one_is_enough, rule = reader.criterion != "allOf", "SUM_TYPE_EXTENDED"
    else:
        assert isinstance(writer, Combined)
        pairs = [(member, Link(None, reader)) for member in writer.members]
        one_is_enough, rule = writer.criterion == "allOf", "PRODUCT_TYPE_NARROWED"
    if len(pairs) == 1 or one_is_enough:
        for pair in pairs:
            outcome = yield pair
            if not outcome.breaks:
                return outcome, rule if len(pairs) > 1 else None
    return None


def _combined(out: Outcome, writer: Combined, reader: Combined) -> Steps:
    if writer.criterion != reader.criterion:
        single = len(writer.members) == 1, len(reader.members) == 1
        if not (
            reader.criterion == "anyOf"
            or all(single)
            or (single[0] and reader.criterion == "oneOf")
            or (single[1] and writer.criterion == "allOf")
        ):
            out.add(
                "COMBINED_TYPE_CHANGED",
                "",
                f"the writer's {writer.criterion} is not the reader's {reader.criterion}",
                f"Keep {writer.criterion}, or loosen it to anyOf.",
            )
            return
        out.note("COMBINED_TYPE_EXTENDED")
    before, after = _distinct(writer.members), _distinct(reader.members)
    _compare_sizes(out, writer, reader, len(before), len(after))
    outcomes: dict[tuple[int, int], Outcome] = {}
    for i, old in enumerate(before):
        for j, new in enumerate(after):
            outcome = yield old, new
            if not outcome.breaks:
                outcomes[i, j] = outcome
    matched = matching(len(before), outcomes.keys())
    for i, j in matched:
        out.include(outcomes[i, j], f"/{writer.criterion}/{i}")
    if len(matched) < min(len(before), len(after)):
        lost = sorted(set(range(len(before))) - {i for i, _ in matched})
        names = ", ".join(describe(before[i].target) for i in lost[:3]) + (" …" if len(lost) > 3 else "")
        out.add(
            "COMBINED_TYPE_SUBSCHEMAS_CHANGED",
            "",
            f"no member of the reader's {reader.criterion} is left that reads the writer's {names}",
            f"Keep a member that reads it: the reader has {', '.join(describe(m.target) for m in after[:5])}.",
        )


def _distinct(members: list[Link]) -> list[Link]:
    return list({member.key or id(member): member for member in members}.values())


def _compare_sizes(out: Outcome, writer: Combined, reader: Combined, before: int, after: int) -> None:
    if before < after:
        if reader.criterion == "allOf":
            out.add(
                "PRODUCT_TYPE_EXTENDED",
                "",
                f"the writer's {writer.criterion} has {before} schemas and the reader's allOf {after}, which all hold",
                "Take the new demand back, or make it of a new version.",
            )
        else:
            out.note("SUM_TYPE_EXTENDED")
    elif before > after:
        if writer.criterion == "allOf":
            out.note("PRODUCT_TYPE_NARROWED")
        else:
            out.add(
                "SUM_TYPE_NARROWED",
                "",
                f"the writer's {writer.criterion} has {before} members and the reader's {reader.criterion} {after}",
                "Keep every member of the union: one that was written must be read.",
            )


def _not(out: Outcome, writer: Not, reader: Not) -> Steps:
    outcome = yield reader.link, writer.link
    if outcome.breaks:
        out.add(
            "NOT_TYPE_EXTENDED",
            "/not",
            f"the reader refuses {describe(reader.link.target)}, of which the writer's not"
            f" ({describe(writer.link.target)}) lets some pass",
            "Refuse no more than the writer did.",
        )
    else:
        out.note("NOT_TYPE_NARROWED", "/not")


_KINDS: dict[type[Node], Callable[[Outcome, Any, Any], Steps | None]] = {
    Text: _values.text,
    Number: _values.number,
    Constant: _values.constant,
    Enumeration: _values.enumeration,
    Combined: _combined,
    Not: _not,
    Object: _containers.compare_objects,
    Array: _containers.compare_arrays,
}
