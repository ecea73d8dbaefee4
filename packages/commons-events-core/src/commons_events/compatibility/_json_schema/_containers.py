"""Confluent's rules for objects and arrays: content models.

A content model is open where it lets pass what it doesn't name, closed where it refuses that, and partially open
where a schema says what may stand there (``patternProperties`` or a schema of additional or unevaluated ones).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from commons_events.compatibility._json_schema._differences import Effect, Outcome
from commons_events.compatibility._json_schema._nodes import Anything, Array, Link, Nothing, Object, describe, shown
from commons_events.compatibility._json_schema._patterns import searcher
from commons_events.compatibility._json_schema._values import compare_lower, compare_upper

__all__ = ["compare_arrays", "compare_objects"]

Steps = Generator[tuple[Link, Link], Outcome, None]


@dataclass(frozen=True, slots=True)
class _Words:
    """What the rules and messages of a kind of container call its parts."""

    rule: str
    part: str
    rest: str
    """Of keywords and paths, after ``additional`` and ``unevaluated``."""


_PROPERTIES = _Words("PROPERTY", "property", "Properties")
_ITEMS = _Words("ITEM", "item", "Items")


# --- objects ---------------------------------------------------------------------------------------------------


def compare_objects(out: Outcome, writer: Object, reader: Object) -> Steps:
    """Two objects."""
    for name in writer.properties:
        if name in reader.properties:
            _compare_required(out, name, writer, reader)
    for name in [*writer.properties, *(name for name in reader.properties if name not in writer.properties)]:
        path = f"/properties/{_escape(name)}"
        old, new = writer.properties.get(name), reader.properties.get(name)
        if old is not None and new is not None:
            out.include((yield old, new), path)
        elif old is not None:
            yield from _removed(out, path, _PROPERTIES, old, reader, _rest_of(reader, name))
        elif new is not None:
            yield from _added_property(out, path, name, new, writer, reader)
    yield from _compare_dependencies(out, writer, reader)
    yield from _compare_additional(out, _PROPERTIES, writer.additional, reader.additional)
    yield from _compare_unevaluated(out, _PROPERTIES, writer.unevaluated, reader.unevaluated)
    compare_upper(out, "maxProperties", writer.max_properties, reader.max_properties)
    compare_lower(out, "minProperties", writer.min_properties, reader.min_properties)


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _compare_required(out: Outcome, name: str, writer: Object, reader: Object) -> None:
    path = f"/required/{_escape(name)}"
    if name in writer.required and name not in reader.required:
        out.note("REQUIRED_ATTRIBUTE_REMOVED", path)
    elif name in reader.required and name not in writer.required:
        if reader.properties[name].default is not None:
            out.note("REQUIRED_ATTRIBUTE_WITH_DEFAULT_ADDED", path)
        else:
            out.add(
                "REQUIRED_ATTRIBUTE_ADDED",
                path,
                f"the reader requires {name!r}, which the writer may leave out",
                f"Give {name!r} a default, or leave it optional.",
            )


def _added_property(out: Outcome, path: str, name: str, new: Link, writer: Object, reader: Object) -> Steps:
    """A property that only the reader names: what would the writer have let pass under its name?"""
    required, default = name in reader.required, new.default is not None
    if _is_open(writer) and not writer.patterns:
        if isinstance(new.node, Anything):
            out.note("PROPERTY_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL", path)
            return
        rule, effect = "OPTIONAL_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL", Effect.STRICT
        if required and default:
            rule = "REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_OPEN_CONTENT_MODEL"
        elif required:
            rule, effect = "REQUIRED_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL", Effect.BREAKS
        out.add(
            rule,
            path,
            f"the reader wants {name!r} to be {describe(new.target)}; the writer names no such property and its "
            "content model is open, so anything may stand there",
            "Close the writer's content model (additionalProperties: false), give the property the schema true"
            + (
                ", and a default or leave it optional."
                if required and not default
                else ", or check by the lenient policy (lenient=True, --lenient)."
            ),
            effect,
        )
        return
    covering = _rest_of(writer, name)
    if covering is not None:
        yield from _covered(out, path, _PROPERTIES, "ADDED", covering, new)
    if required and default:
        out.note("REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_UNOPEN_CONTENT_MODEL", path)
    elif required:
        out.add(
            "REQUIRED_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL",
            path,
            f"the reader requires {name!r}, which the writer doesn't have",
            f"Give {name!r} a default, or leave it optional.",
        )
    else:
        out.note("OPTIONAL_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL", path)


def _compare_dependencies(out: Outcome, writer: Object, reader: Object) -> Steps:
    for name in dict.fromkeys([*writer.dependent_required, *reader.dependent_required]):
        before, after = writer.dependent_required.get(name), reader.dependent_required.get(name)
        path = f"/dependencies/{_escape(name)}"
        if after is None:
            out.note("DEPENDENCY_ARRAY_REMOVED", path)
        elif before is None or not after <= before:
            rule = "ADDED" if before is None else "EXTENDED" if before < after else "CHANGED"
            had = "nothing" if before is None else shown(sorted(before))
            out.add(
                f"DEPENDENCY_ARRAY_{rule}",
                path,
                f"beside {name!r} the writer requires {had}, the reader {shown(sorted(after))}",
                f"Require no more beside {name!r} than the writer did.",
            )
        elif after < before:
            out.note("DEPENDENCY_ARRAY_NARROWED", path)
    for name in dict.fromkeys([*writer.dependent_schemas, *reader.dependent_schemas]):
        old, new = writer.dependent_schemas.get(name), reader.dependent_schemas.get(name)
        path = f"/dependencies/{_escape(name)}"
        if old is not None and new is not None:
            out.include((yield old, new), path)
        elif old is not None:
            out.note("DEPENDENCY_SCHEMA_REMOVED", path)
        elif new is not None:
            out.add(
                "DEPENDENCY_SCHEMA_ADDED",
                path,
                f"beside {name!r} the reader has a schema of the whole ({describe(new.target)}), the writer none",
                "Take the dependency back, or make it of a new version.",
            )


# --- arrays ----------------------------------------------------------------------------------------------------


def compare_arrays(out: Outcome, writer: Array, reader: Array) -> Steps:
    """Two arrays."""
    yield from _compare_every(out, writer.every, reader.every)
    both = min(len(writer.tuple), len(reader.tuple))
    for index, (old, new) in enumerate(zip(writer.tuple, reader.tuple, strict=False)):
        out.include((yield old, new), f"/items/{index}")
    for index, old in enumerate(writer.tuple[both:], both):
        yield from _removed(out, f"/items/{index}", _ITEMS, old, reader, _rest_of(reader))
    for index, new in enumerate(reader.tuple[both:], both):
        yield from _added_item(out, f"/items/{index}", new, writer)
    yield from _compare_additional(out, _ITEMS, writer.additional, reader.additional)
    yield from _compare_unevaluated(out, _ITEMS, writer.unevaluated, reader.unevaluated)
    compare_upper(out, "maxItems", writer.max_items, reader.max_items)
    compare_lower(out, "minItems", writer.min_items, reader.min_items)
    if writer.unique and not reader.unique:
        out.note("UNIQUE_ITEMS_REMOVED", "/uniqueItems")
    elif reader.unique and not writer.unique:
        out.add(
            "UNIQUE_ITEMS_ADDED",
            "/uniqueItems",
            "the reader wants unique items, the writer may repeat them",
            "Leave uniqueItems out.",
        )
    compare_upper(out, "maxContains", writer.max_contains, reader.max_contains)
    compare_lower(out, "minContains", writer.min_contains, reader.min_contains)


def _compare_every(out: Outcome, old: Link | None, new: Link | None) -> Steps:
    if old is not None and new is not None:
        out.include((yield old, new), "/items")
    elif old is not None:
        out.note("SCHEMA_REMOVED", "/items")
    elif new is not None:
        out.add(
            "SCHEMA_ADDED",
            "/items",
            f"the reader's items are {describe(new.target)}, the writer's anything",
            "Leave the items as they were, or make them of a new version.",
        )


def _added_item(out: Outcome, path: str, new: Link, writer: Array) -> Steps:
    """A place in a tuple that only the reader names: what would the writer have let pass there?"""
    covering = _rest_of(writer)
    if _is_open(writer):
        if isinstance(new.node, Anything):
            out.note("ITEM_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL", path)
        else:
            out.add(
                "ITEM_ADDED_TO_OPEN_CONTENT_MODEL",
                path,
                f"the reader wants {describe(new.target)} there; the writer names no such item and its content model "
                "is open, so anything may stand there",
                "Give the item the schema true, or close the writer's content model first.",
            )
    elif covering is not None:
        yield from _covered(out, path, _ITEMS, "ADDED", covering, new)
    else:
        out.note("ITEM_ADDED_TO_CLOSED_CONTENT_MODEL", path)


# --- what isn't named ------------------------------------------------------------------------------------------


def _is_open(node: Object | Array) -> bool:
    return node.additional is True and (node.unevaluated is None or isinstance(node.unevaluated.node, Anything))


def _rest_of(node: Object | Array, name: str | None = None) -> Link | None:
    """The schema of what has this name, or stands at a place, that the node doesn't name; None for none."""
    if isinstance(node, Object) and name is not None:
        for pattern, schema in node.patterns.items():
            if searcher(pattern)(name):
                return schema
    if isinstance(node.additional, Link):
        return node.additional
    rest = node.unevaluated if node.additional else None
    return None if rest is None or isinstance(rest.node, Anything | Nothing) else rest


def _removed(out: Outcome, path: str, words: _Words, old: Link, reader: Object | Array, covering: Link | None) -> Steps:
    """A property or item that only the writer names: does the reader let it pass?"""
    if _is_open(reader) and not (isinstance(reader, Object) and reader.patterns):
        out.note(f"{words.rule}_REMOVED_FROM_OPEN_CONTENT_MODEL", path)
    elif covering is not None:
        yield from _covered(out, path, words, "REMOVED", old, covering)
    elif isinstance(old.node, Nothing):
        out.note(f"{words.rule}_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL", path)
    else:
        out.add(
            f"{words.rule}_REMOVED_FROM_CLOSED_CONTENT_MODEL",
            path,
            f"the writer has {describe(old.target)} there; the reader names no such {words.part} and its content "
            "model is closed, so it refuses it",
            f"Keep the {words.part}, or open the reader's content model (additional{words.rest}: true).",
            Effect.STRICT if words is _PROPERTIES else Effect.BREAKS,
        )


def _covered(out: Outcome, path: str, words: _Words, what: str, old: Link, new: Link) -> Steps:
    """A part that one side names and the other has a general schema for."""
    outcome = yield old, new
    out.include(outcome, path)
    if not outcome.breaks:
        out.note(f"{words.rule}_{what}_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL", path)
        return
    side = "writer" if what == "ADDED" else "reader"
    out.add(
        f"{words.rule}_{what}_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        path,
        f"the {side} doesn't name this {words.part}, and what it has for unnamed ones doesn't fit: "
        f"{describe(old.target)} would have to be read as {describe(new.target)}",
        f"Give the {words.part} a schema that fits the {side}'s additional{words.rest} or patterns.",
        Effect.STRICT if words is _PROPERTIES else Effect.BREAKS,
    )


def _compare_additional(out: Outcome, words: _Words, old: Link | bool, new: Link | bool) -> Steps:
    yield from _compare_rest(
        out,
        words,
        "additional",
        None if old is True else old,
        None if new is True else new,
    )


def _compare_unevaluated(out: Outcome, words: _Words, old: Link | None, new: Link | None) -> Steps:
    """As for additional ones, but to Confluent even ``true`` narrows where nothing was said before."""
    before = False if old is not None and isinstance(old.node, Nothing) else old
    after = False if new is not None and isinstance(new.node, Nothing) else new
    if isinstance(before, Link) and isinstance(after, Link):
        if isinstance(before.node, Anything):
            before = None
        if isinstance(after.node, Anything):
            after = None
    yield from _compare_rest(out, words, "unevaluated", before, after)


def _compare_rest(out: Outcome, words: _Words, which: str, old: Link | bool | None, new: Link | bool | None) -> Steps:
    """What one side and the other have for what they don't name: None for anything, False for nothing, a schema."""
    path = f"/{which}{words.rest}"
    rule = f"{which}_{words.rest}".upper()
    if isinstance(old, Link) and isinstance(new, Link):
        out.include((yield old, new), path)
    elif old == new or old is new:
        return
    elif old is False:
        out.note(f"{rule}_ADDED", path)
    elif new is None:
        out.note(f"{rule}_EXTENDED", path)
    else:
        out.add(
            f"{rule}_REMOVED" if new is False else f"{rule}_NARROWED",
            path,
            f"the writer lets {_in_words(old)} pass, the reader {_in_words(new)}",
            f"Leave {path[1:]} as it was, or loosen it.",
            Effect.STRICT if words is _PROPERTIES else Effect.BREAKS,
        )


def _in_words(rest: Link | bool | None) -> str:
    return "anything" if rest is None else describe(rest.target) if isinstance(rest, Link) else "nothing"
