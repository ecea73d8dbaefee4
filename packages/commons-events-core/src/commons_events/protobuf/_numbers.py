"""Which number a field has: stated, locked, or by order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from commons_events.errors import EventDefinitionError

__all__ = ["BLANK", "ENVELOPE_NUMBERS", "EXTRA", "FIRST_OWN", "LAST_OWN", "Wanted", "assign", "is_free"]

FIRST_OWN, LAST_OWN = 2032, 2047
"""The framework's own numbers, in every message: the last that a tag of two bytes can hold."""
EXTRA = 2038
"""Fields that the class does not declare, where it keeps those."""
BLANK = 2039
"""The numbers of fields that are None or empty although their default is neither."""
ENVELOPE_NUMBERS = {
    "event_type": 2040,
    "version": 2041,
    "event_id": 2042,
    "source": 2043,
    "timestamp": 2044,
    "correlation_id": 2045,
    "causation_id": 2046,
    "metadata": 2047,
}

_LARGEST = (1 << 29) - 1
_RESERVED = range(19000, 20000)
_OWN = range(FIRST_OWN, LAST_OWN + 1)


class Wanted(NamedTuple):
    """A field that needs a number."""

    name: str
    number: int | None
    aliases: Sequence[str]


def assign(
    wanted: Sequence[Wanted], locked: Mapping[str, int], reserved: Mapping[str, int], where: str
) -> tuple[dict[str, int], list[str]]:
    """A number for each field: the one that it states, else the locked one (of a former name, too), else the next.

    Args:
        wanted: the fields in the order of their declaration.
        locked: numbers by name.
        reserved: those of fields that are gone.
        where: for the errors.

    Returns:
        The numbers, and the names of those that have theirs by order alone.

    Raises:
        EventDefinitionError: a number is out of range, taken, reserved, or another one than is locked.
    """
    numbers: dict[str, int] = {}
    owners: dict[int, str] = {}
    gone = {number: name for name, number in reserved.items()}
    for name, stated, aliases in wanted:
        former = next((locked[known] for known in (name, *aliases) if known in locked), None)
        number = former if stated is None else stated
        if number is None:
            continue
        if stated is not None:
            _check(name, stated, former, where)
        if number in gone:
            raise EventDefinitionError(
                f"{where}: field {name!r} has the number {number}, which was {gone[number]!r}'s: old bytes would be "
                "read as the new field. Choose another number."
            )
        if number in owners:
            raise EventDefinitionError(
                f"{where}: the fields {owners[number]!r} and {name!r} both have the number {number}. Change one "
                "FieldNumber(…), or the lock file."
            )
        numbers[name] = number
        owners[number] = name
    taken = {*owners, *gone, *locked.values()}
    by_order = [name for name, _, _ in wanted if name not in numbers]
    following = 1 if not locked else max(taken, default=0) + 1
    for name in by_order:
        while following in taken or following in _OWN or following in _RESERVED:
            following += 1
        numbers[name] = following
        following += 1
    return numbers, by_order


def is_free(number: int) -> bool:
    """Whether a field of the user's may have this number."""
    return 0 < number <= _LARGEST and number not in _RESERVED and number not in _OWN


def _check(name: str, number: int, former: int | None, where: str) -> None:
    if type(number) is not int or not 0 < number <= _LARGEST:
        problem = f"which is none: they go from 1 to {_LARGEST:,}"
    elif number in _RESERVED:
        problem = "which Protobuf keeps for itself (19000 to 19999)"
    elif number in _OWN:
        problem = f"which is kept for the event's envelope ({FIRST_OWN} to {LAST_OWN})"
    elif former is not None and former != number:
        problem = f"and the lock file has {former}: bytes of before would not be read. Keep {former}"
    else:
        return
    raise EventDefinitionError(f"{where}: field {name!r} states the number {number!r}, {problem}.")
