"""Making, writing and reading the product page's `UserRegisteredEvent`, and plain pydantic doing the same."""

from __future__ import annotations

from tools.bench.measure import Effort, Table, at_most, microseconds
from tools.bench.model import PlainUserRegistered, UncheckedUserRegistered, UserRegisteredEvent, user_fields

LIBRARIES = ("pydantic", "pydantic-core")
COUNT = 3000
PLAIN = "plain pydantic, same work"
UNCHECKED = "plain pydantic without the checks"
TARGET = at_most(1.25, PLAIN, name="plain pydantic")

FIELDS = user_fields()
EVENT = UserRegisteredEvent(**FIELDS)
SAME = {**FIELDS, "event_id": EVENT.event_id, "timestamp": EVENT.timestamp}
MODEL = PlainUserRegistered(**SAME)
EVENT_BYTES, PLAIN_BYTES = EVENT.to_json(), MODEL.model_dump_json().encode()

making = Table(
    "events making",
    "Making an event (UserRegisteredEvent of the product's page)",
    "Same work: a BaseModel with the same 12 fields, the 8 of the envelope (event_id: uuid4, timestamp: now in UTC),\n"
    "and in model_post_init the checks that the event has in __post_init__; 10 fields given, the rest by default.",
    "µs",
)


@making.contender(PLAIN)
def plain_made(effort: Effort) -> float:
    return microseconds(lambda: PlainUserRegistered(**FIELDS), effort.count(COUNT))


@making.contender("UserRegisteredEvent(…)", TARGET)
def event_made(effort: Effort) -> float:
    return microseconds(lambda: UserRegisteredEvent(**FIELDS), effort.count(COUNT))


@making.contender(UNCHECKED)
def unchecked_made(effort: Effort) -> float:
    return microseconds(lambda: UncheckedUserRegistered(**FIELDS), effort.count(COUNT))


writing = Table(
    "events serialize",
    "Event to bytes (JSON)",
    "Same work: model_dump_json().encode() of that BaseModel, to the same members in the same order\n"
    f"({len(EVENT_BYTES)} bytes; plain pydantic {len(PLAIN_BYTES)}). The event also refuses NaN and infinity.",
    "µs",
)


@writing.contender(PLAIN)
def plain_written(effort: Effort) -> float:
    return microseconds(lambda: MODEL.model_dump_json().encode(), effort.count(COUNT))


@writing.contender("event.serialize()", TARGET)
def event_serialized(effort: Effort) -> float:
    return microseconds(EVENT.serialize, effort.count(COUNT))


@writing.contender("event.to_json()", TARGET)
def event_written(effort: Effort) -> float:
    return microseconds(EVENT.to_json, effort.count(COUNT))


@writing.contender("plain pydantic's serializer, bytes at once")
def plain_bytes(effort: Effort) -> float:
    serializer = MODEL.__pydantic_serializer__
    return microseconds(lambda: serializer.to_json(MODEL), effort.count(COUNT))


reading = Table(
    "events deserialize",
    "Bytes (JSON) to event",
    "Same work: model_validate_json of that BaseModel with the checks, from the same bytes.\n"
    "The event also refuses NaN and infinity, another type, and another major version.",
    "µs",
)


@reading.contender(PLAIN)
def plain_read(effort: Effort) -> float:
    return microseconds(lambda: PlainUserRegistered.model_validate_json(EVENT_BYTES), effort.count(COUNT))


@reading.contender("UserRegisteredEvent.deserialize(…)", TARGET)
def event_deserialized(effort: Effort) -> float:
    return microseconds(lambda: UserRegisteredEvent.deserialize(EVENT_BYTES), effort.count(COUNT))


@reading.contender("UserRegisteredEvent.from_json(…)", TARGET)
def event_read(effort: Effort) -> float:
    return microseconds(lambda: UserRegisteredEvent.from_json(EVENT_BYTES), effort.count(COUNT))


@reading.contender(UNCHECKED)
def unchecked_read(effort: Effort) -> float:
    return microseconds(lambda: UncheckedUserRegistered.model_validate_json(EVENT_BYTES), effort.count(COUNT))


TABLES = (making, writing, reading)
