"""Confluent's rules for strings, numbers, constants and enumerations."""

from __future__ import annotations

from collections.abc import Generator
from decimal import Context, Decimal, InvalidOperation

from commons_events.compatibility._json_schema._differences import Outcome
from commons_events.compatibility._json_schema._nodes import Constant, Enumeration, Link, Number, Text, shown

__all__ = ["compare_lower", "compare_upper", "constant", "enumeration", "number", "text"]

Steps = Generator[tuple[Link, Link], Outcome, None] | None
Bound = int | Decimal | None


def compare_upper(out: Outcome, keyword: str, writer: Bound, reader: Bound) -> None:
    """A keyword that says how much there may be at most: a reader may raise it or leave it out."""
    _compare_bound(out, keyword, writer, reader, lower=False)


def compare_lower(out: Outcome, keyword: str, writer: Bound, reader: Bound) -> None:
    """A keyword that says how much there is at least: a reader may lower it or leave it out."""
    _compare_bound(out, keyword, writer, reader, lower=True)


def _compare_bound(out: Outcome, keyword: str, writer: Bound, reader: Bound, *, lower: bool) -> None:
    if writer == reader:
        return
    rule = "".join(f"_{c}" if c.isupper() else c for c in keyword).upper()
    path = f"/{keyword}"
    if reader is None:
        out.note(f"{rule}_REMOVED", path)
    elif writer is None:
        out.add(
            f"{rule}_ADDED",
            path,
            f"the reader has {keyword} {reader}, the writer none",
            f"Leave {keyword} out, or make it of a new version.",
        )
    else:
        moved = "INCREASED" if writer < reader else "DECREASED"
        if (writer < reader) is not lower:
            out.note(f"{rule}_{moved}", path)
        else:
            out.add(
                f"{rule}_{moved}",
                path,
                f"the writer has {keyword} {writer}, the reader {reader}",
                f"Keep {keyword} at {writer} or {'lower' if lower else 'raise'} it.",
            )


def text(out: Outcome, writer: Text, reader: Text) -> Steps:
    """Two strings."""
    compare_upper(out, "maxLength", writer.max_length, reader.max_length)
    compare_lower(out, "minLength", writer.min_length, reader.min_length)
    if writer.pattern == reader.pattern:
        return None
    if reader.pattern is None:
        out.note("PATTERN_REMOVED", "/pattern")
        return None
    rule = "PATTERN_ADDED" if writer.pattern is None else "PATTERN_CHANGED"
    before = "none" if writer.pattern is None else shown(writer.pattern)
    out.add(
        rule,
        "/pattern",
        f"the writer has pattern {before}, the reader {shown(reader.pattern)}",
        "Leave the pattern as it was, or leave it out: no rule tells whether one covers another.",
    )
    return None


def number(out: Outcome, writer: Number, reader: Number) -> Steps:
    """Two numbers."""
    compare_upper(out, "maximum", writer.maximum, reader.maximum)
    compare_lower(out, "minimum", writer.minimum, reader.minimum)
    _compare_exclusive(out, "exclusiveMaximum", writer.exclusive_maximum, reader.exclusive_maximum, lower=False)
    _compare_exclusive(out, "exclusiveMinimum", writer.exclusive_minimum, reader.exclusive_minimum, lower=True)
    _compare_multiples(out, writer.multiple_of, reader.multiple_of)
    if writer.integer and not reader.integer:
        out.note("TYPE_EXTENDED")
    elif reader.integer and not writer.integer:
        out.add("TYPE_NARROWED", "", "the writer's number is the reader's integer", "Keep number.")
    return None


def _compare_exclusive(
    out: Outcome, keyword: str, writer: Decimal | bool | None, reader: Decimal | bool | None, *, lower: bool
) -> None:
    """A number of its own; in draft 4, a flag that belongs to ``maximum`` or ``minimum``."""
    before = None if isinstance(writer, bool) else writer
    after = None if isinstance(reader, bool) else reader
    _compare_bound(out, keyword, before, after, lower=lower)
    if reader is True and writer is not True:
        rule = "EXCLUSIVE_MINIMUM_ADDED" if lower else "EXCLUSIVE_MAXIMUM_ADDED"
        limit = "minimum" if lower else "maximum"
        out.add(
            rule, f"/{keyword}", f"the reader excludes its {limit} itself, the writer doesn't", f"Leave {keyword} out."
        )


def _compare_multiples(out: Outcome, writer: Decimal | None, reader: Decimal | None) -> None:
    path = "/multipleOf"
    if writer == reader:
        return
    if reader is None:
        out.note("MULTIPLE_OF_REMOVED", path)
        return
    advice = f"Keep multipleOf at {writer}, or a number that divides it." if writer else "Leave multipleOf out."
    message = f"the writer has multipleOf {writer or 'nothing'}, the reader {reader}"
    if writer is None:
        out.add("MULTIPLE_OF_ADDED", path, message, advice)
    elif _divides(writer, reader):
        out.add("MULTIPLE_OF_EXPANDED", path, message, advice)
    elif _divides(reader, writer):
        out.note("MULTIPLE_OF_REDUCED", path)
    else:
        out.add("MULTIPLE_OF_CHANGED", path, message, advice)


def _divides(one: Decimal, other: Decimal) -> bool:
    try:
        return not _CONTEXT.remainder(other, one)
    except InvalidOperation:  # one is out of all proportion to the other
        return False


_CONTEXT = Context(prec=400, traps=[InvalidOperation])


def constant(out: Outcome, writer: Constant, reader: Constant) -> Steps:
    """Two constants."""
    if writer.value != reader.value:
        before, after = shown(writer.raw["const"]), shown(reader.raw["const"])
        out.add(
            "ENUM_ARRAY_CHANGED",
            "/const",
            f"the writer's value is {before}, the reader's {after}",
            f"Keep {before}, or take an enum that has both.",
        )
    return None


def enumeration(out: Outcome, writer: Enumeration, reader: Enumeration) -> Steps:
    """Two lists of values."""
    if writer.values == reader.values:
        return None
    if writer.values < reader.values:
        out.note("ENUM_ARRAY_EXTENDED", "/enum")
        return None
    rule = "ENUM_ARRAY_NARROWED" if reader.values < writer.values else "ENUM_ARRAY_CHANGED"
    out.add(
        rule,
        "/enum",
        f"the writer has {shown(writer.raw['enum'])}, the reader {shown(reader.raw['enum'])}",
        "Keep every value: one that was written must be read.",
    )
    return None
