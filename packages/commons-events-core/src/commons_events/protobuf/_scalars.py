"""Python's values as those that Protobuf has, where they are not the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from commons_events.event._values import MAX_DIGITS
from commons_events.protobuf._wire import WireError
from commons_events.shapes import Scalar

__all__ = ["from_duration", "from_text", "from_timestamp", "to_duration", "to_text", "to_timestamp"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)
_FAR_OFFSET = timedelta(hours=23, minutes=59)
_NANOS = 1_000_000_000


def to_timestamp(value: datetime) -> tuple[int, int]:
    """The seconds and nanoseconds of a ``google.protobuf.Timestamp``."""
    since = value - _EPOCH
    return since.days * 86400 + since.seconds, since.microseconds * 1000


def from_timestamp(seconds: int, nanos: int) -> datetime:
    """The datetime, in UTC; what is finer than a microsecond is cut off."""
    if not 0 <= nanos < _NANOS:
        raise WireError(f"a Timestamp has {nanos:,} nanos, and 0 to 999,999,999 are possible")
    try:
        return _EPOCH + timedelta(0, seconds, nanos // 1000)
    except OverflowError:
        return _far(seconds, nanos)


def _far(seconds: int, nanos: int) -> datetime:
    """Less than a day outside of the years 1 to 9999 in UTC, which is inside of them at some offset."""
    offset = _FAR_OFFSET if seconds < 0 else -_FAR_OFFSET
    try:
        local = _NAIVE_EPOCH + timedelta(0, seconds, nanos // 1000) + offset
    except OverflowError:
        try:
            local = _NAIVE_EPOCH + (timedelta(0, seconds, nanos // 1000) + offset)
        except OverflowError:
            raise WireError(f"a Timestamp of {seconds:,} seconds is outside of the years 1 to 9999") from None
    return local.replace(tzinfo=timezone(offset))


def to_duration(value: timedelta) -> tuple[int, int]:
    """The seconds and nanoseconds of a ``google.protobuf.Duration``, which have the same sign."""
    seconds, micros = value.days * 86400 + value.seconds, value.microseconds
    if seconds < 0 and micros:
        return seconds + 1, (micros - 1_000_000) * 1000
    return seconds, micros * 1000


def from_duration(seconds: int, nanos: int) -> timedelta:
    """The timedelta; what is finer than a microsecond is cut off."""
    if not -_NANOS < nanos < _NANOS:
        raise WireError(f"a Duration has {nanos:,} nanos, and ±999,999,999 are possible")
    micros = nanos // 1000 if nanos >= 0 else -(-nanos // 1000)
    try:
        return timedelta(0, seconds, micros)
    except OverflowError:
        raise WireError(f"a Duration of {seconds:,} seconds is more than a timedelta holds") from None


def _decimal(text: str) -> Decimal:
    value = Decimal(text)
    if not value.is_finite():
        raise WireError(f"{text!r} is not a finite number")
    return value


def _whole(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > MAX_DIGITS:
        raise WireError(f"an int past 64 bits is up to {MAX_DIGITS:,} decimal digits, not {text[:40]!r}")
    return int(text)


_FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "date": date.fromisoformat,
    "decimal": _decimal,
    "time": time.fromisoformat,
    "uuid": UUID,
}
_TO_TEXT: dict[str, Callable[[Any], str]] = {
    "date": date.isoformat,
    "decimal": str,
    "time": time.isoformat,
    "uuid": str,
}


def to_text(shape: Scalar) -> Callable[[Any], str] | None:
    """What makes the text of such a value, or None where it is none or is its own."""
    if shape.digits_past_64_bits:
        return str
    return _TO_TEXT.get(shape.kind)


def from_text(shape: Scalar) -> Callable[[str], Any] | None:
    """What makes such a value of its text, raising a ValueError; or None."""
    if shape.digits_past_64_bits:
        return _whole
    if shape.kind == "decimal" and shape.limits.get("allow_inf_nan"):
        return Decimal
    return _FROM_TEXT.get(shape.kind)
