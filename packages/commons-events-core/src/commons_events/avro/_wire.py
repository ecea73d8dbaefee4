"""The pieces of Avro's binary encoding (specification, section Binary Encoding), each as fast as Python allows.

Writers return bytes; readers take the bytes and a position, and return the value and the position behind it. Readers
never look back and never allocate by a count that the bytes claim: a length that is too long moves the position past
the end, which the next read, or the check at the end, finds.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Context, Decimal
from struct import Struct
from typing import TypeVar
from uuid import UUID, SafeUUID

from commons_events.event._values import MAX_DIGITS

MAX_ITEMS_WITHOUT_BYTES = 10_000
"""How many items that take no bytes (nulls, records without fields) all collections of one datum may have."""
DATE_EPOCH = date(1970, 1, 1).toordinal()
EXACT = Context(prec=2 * MAX_DIGITS + 100)

join = b"".join
T = TypeVar("T")


class NotAvroError(ValueError):
    """What is wrong with some bytes, or with a value that is to become bytes; who catches it adds the place."""


# --- numbers ---------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """An unsigned number in base 128, the lowest digits first."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


class Lengths(dict[int, bytes]):
    """The encoding of a length or count, behind a constant prefix: short ones are looked up, long ones made."""

    def __init__(self, prefix: bytes = b"") -> None:
        super().__init__((number, prefix + varint(2 * number)) for number in range(256))
        self._prefix = prefix

    def __missing__(self, number: int) -> bytes:
        return self._prefix + varint(2 * number)


LENGTHS = Lengths()
BOOLEANS = {0: False, 1: True}
BOOLEAN_BYTES = {False: b"\0", True: b"\1"}

_PAIRS = tuple(bytes((low | 128, high | 128)) for high in range(128) for low in range(128))
"""Two digits with more behind them, by their value: an 8-byte number takes four look-ups."""
_ENDS = tuple(varint(number) for number in range(1 << 14))
"""The last digit or two."""


def to_long(number: int) -> bytes:
    """A ``long``: zig-zag, then a varint."""
    zigzag = number << 1 ^ number >> 63  # of an int that is too large it is too large, too
    if zigzag < _BIT_14:
        return _ENDS[zigzag]
    if zigzag < _BIT_28:
        return _PAIRS[zigzag & 16383] + _ENDS[zigzag >> 14]
    if zigzag < _BIT_42:
        return _PAIRS[zigzag & 16383] + _PAIRS[zigzag >> 14 & 16383] + _ENDS[zigzag >> 28]
    if zigzag < _BIT_56:
        return (
            _PAIRS[zigzag & 16383] + _PAIRS[zigzag >> 14 & 16383] + _PAIRS[zigzag >> 28 & 16383] + _ENDS[zigzag >> 42]
        )
    if zigzag < _BIT_64:
        return varint(zigzag)
    raise NotAvroError(
        f"an int of {number.bit_length()} bits, and a long has 64. State wider limits (pydantic's ge and le) to have "
        "it as a decimal, or use Any or str"
    )


_BIT_14, _BIT_28, _BIT_42, _BIT_56, BIT_63, _BIT_64 = 1 << 14, 1 << 28, 1 << 42, 1 << 56, 1 << 63, 1 << 64
SMALL_LONGS = {number: to_long(number) for number in range(-256, 1024)}


def read_rest(data: bytes, pos: int, first: int) -> tuple[int, int]:
    """What follows a first byte above 127: the number, still zig-zag, and the position behind it."""
    number, shift = first & 127, 7
    while True:
        byte = data[pos]
        pos += 1
        number |= (byte & 127) << shift
        if byte < 128:
            if number < _BIT_64:
                return number, pos
            raise NotAvroError("a number of more than 64 bits")
        shift += 7
        if shift > 63:
            raise NotAvroError("a number of more than 10 bytes")


def read_long(data: bytes, pos: int) -> tuple[int, int]:
    """An ``int`` or ``long``."""
    number = data[pos]
    pos += 1
    if number > 127:
        number, pos = read_rest(data, pos, number)
    return number >> 1 ^ -(number & 1), pos


# --- texts -----------------------------------------------------------------------------------------------------


def to_text(text: str) -> bytes:
    """A ``string``."""
    data = text.encode()
    return LENGTHS[len(data)] + data


def to_bytes(data: bytes) -> bytes:
    """``bytes``."""
    return LENGTHS[len(data)] + data


def read_length(data: bytes, pos: int) -> tuple[int, int]:
    """The length of a text or of bytes, which has to be there."""
    length, pos = read_long(data, pos)
    if not 0 <= length <= len(data) - pos:
        raise NotAvroError(f"a length of {length:,} where {max(len(data) - pos, 0):,} bytes are left")
    return length, pos


def read_text(data: bytes, pos: int) -> tuple[str, int]:
    """A ``string``."""
    length, pos = read_length(data, pos)
    return data[pos : pos + length].decode(), pos + length


def read_count(data: bytes, pos: int, least: int) -> tuple[int, int]:
    """How many items the next block has, each of at least ``least`` bytes; 0 at the end."""
    count, pos = read_long(data, pos)
    if count < 0:
        count = -count
        _, pos = read_length(data, pos)
    if count * least > len(data) - pos:
        raise NotAvroError(f"{count:,} items where {max(len(data) - pos, 0):,} bytes are left")
    return count, pos


# --- logical types ---------------------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # for what lies outside of UTC's years
_LAST_EXACT = 4_000_000_000_000_000
"""Up to here (the year 2096) a float of seconds is exact to the microsecond."""
_TWICE_LAST_EXACT = 2 * _LAST_EXACT
_unpack_8_bytes = Struct("<Q").unpack_from
_FIRST, _LAST = (
    (moment - _EPOCH) // timedelta(microseconds=1)
    for moment in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
)
_EAST, _WEST = timezone(timedelta(hours=23, minutes=59)), timezone(timedelta(hours=-23, minutes=-59))
_from_timestamp = datetime.fromtimestamp


def micros_of(moment: datetime) -> int:
    """Microseconds since the epoch; a naive datetime means UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    return (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds


def to_datetime(moment: datetime) -> bytes:
    """A ``timestamp-micros``."""
    return to_long(micros_of(moment))


def datetime_of(micros: int) -> datetime:
    """The moment, in UTC; one that UTC's years lack (it is past their end in a time zone alone) has an offset."""
    if 0 <= micros < _LAST_EXACT:
        return _from_timestamp(micros / 1_000_000, UTC)
    if _FIRST <= micros <= _LAST:
        return _EPOCH + timedelta(microseconds=micros)
    zone = _EAST if micros < 0 else _WEST
    offset = zone.utcoffset(None)
    return (_NAIVE_EPOCH + (timedelta(microseconds=micros) + offset)).replace(tzinfo=zone)


def read_datetime(data: bytes, pos: int) -> tuple[datetime, int]:
    """A ``timestamp-micros``."""
    if pos + 8 <= len(data):
        number = _unpack_8_bytes(data, pos)[0]
        if number & 0x8080808080808080 == 0x0080808080808080:  # a number of just 8 bytes, as ours have
            number = number & 0x7F007F007F007F | (number & 0x7F007F007F007F00) >> 1
            number = number & 0x3FFF00003FFF | (number & 0x3FFF00003FFF0000) >> 2
            number = number & 0xFFFFFFF | (number & 0xFFFFFFF00000000) >> 4
            if not number & 1 and number < _TWICE_LAST_EXACT:
                return _from_timestamp(number / 2_000_000, UTC), pos + 8
            return datetime_of(number >> 1 ^ -(number & 1)), pos + 8
    number, pos = read_long(data, pos)
    return datetime_of(number), pos


def to_date(day: date) -> bytes:
    """A ``date``."""
    return to_long(day.toordinal() - DATE_EPOCH)


def date_of(days: int) -> date:
    """The date so many days after the epoch."""
    return date.fromordinal(days + DATE_EPOCH)


def time_micros_of(moment: time) -> int:
    """Microseconds since midnight."""
    if moment.tzinfo is not None:
        raise NotAvroError("a time with an offset, which time-micros cannot hold. Use a datetime, or a str")
    return ((moment.hour * 60 + moment.minute) * 60 + moment.second) * 1_000_000 + moment.microsecond


def to_time(moment: time) -> bytes:
    """A ``time-micros``."""
    return to_long(time_micros_of(moment))


def time_of(micros: int) -> time:
    """The time so many microseconds after midnight."""
    if not 0 <= micros < 86_400_000_000:
        raise NotAvroError(f"{micros} microseconds are no time of a day")
    seconds, micros = divmod(micros, 1_000_000)
    return time(seconds // 3600, seconds // 60 % 60, seconds % 60, micros)


def signed(number: int) -> bytes:
    """Two's complement, big-endian, as short as may be: how a decimal's unscaled value is written."""
    return number.to_bytes((number + (number < 0)).bit_length() // 8 + 1, "big", signed=True)


def to_timedelta(span: timedelta) -> bytes:
    """A ``decimal`` of 20 digits, 6 of them behind the point: seconds."""
    return to_bytes(signed((span.days * 86400 + span.seconds) * 1_000_000 + span.microseconds))


def timedelta_of(raw: bytes) -> timedelta:
    """The span of so many microseconds."""
    if len(raw) > 9:
        raise NotAvroError(f"a decimal of {len(raw)} bytes, which is no timedelta")
    return timedelta(microseconds=int.from_bytes(raw, "big", signed=True))


def unscaled(value: Decimal, precision: int, scale: int) -> int:
    """A decimal's digits as an int, where it has no more than its type holds."""
    if value.is_finite() and (not value or value.adjusted() < precision - scale):
        shifted = value.scaleb(scale, EXACT)
        number = int(shifted)
        if number == shifted:
            return number
    raise NotAvroError(f"{value} is not a decimal of {precision} digits, {scale} of them behind the point")


def to_decimal(precision: int, scale: int) -> Callable[[Decimal], bytes]:
    """What writes a ``decimal`` on bytes."""
    return lambda value: to_bytes(signed(unscaled(value, precision, scale)))


def to_whole(precision: int) -> Callable[[int], bytes]:
    """What writes an int as a ``decimal`` on bytes."""
    limit = 10**precision

    def write(value: int) -> bytes:
        if abs(value) < limit:
            return to_bytes(signed(value))
        raise NotAvroError(f"an int of more than {precision} digits")

    return write


def int_of(raw: bytes, precision: int) -> int:
    """The unscaled value of a decimal."""
    number = int.from_bytes(raw, "big", signed=True)
    if abs(number) < 10**precision:
        return number
    raise NotAvroError(f"a decimal of more than {precision} digits")


def decimal_of(raw: bytes, precision: int, scale: int) -> Decimal:
    """The decimal."""
    return Decimal(int_of(raw, precision)).scaleb(-scale, EXACT)


def finite_decimal(text: str) -> Decimal:
    """A decimal of its text, as `str` wrote it."""
    value = Decimal(text)
    if not value.is_finite():
        raise NotAvroError(f"{text} is not a finite decimal")
    return value


_new_uuid, _set_int, _set_safe = UUID.__new__, UUID.int.__set__, UUID.is_safe.__set__  # type: ignore[attr-defined,misc]
_UNKNOWN = SafeUUID.unknown


def to_uuid(value: UUID) -> bytes:
    """A ``uuid`` on a string (RFC 9562, section 4)."""
    digits = f"{value.int:032x}"
    return f"H{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}".encode()  # H is the length, 36


def uuid_of(text: str) -> UUID:
    """The UUID; made without the constructor, which spends its time on telling its arguments apart."""
    digits = text.replace("-", "")
    if len(text) != 36 or len(digits) != 32 or not digits.isalnum():
        return UUID(text)
    value = _new_uuid(UUID)
    _set_int(value, int(digits, 16))
    _set_safe(value, _UNKNOWN)
    return value
