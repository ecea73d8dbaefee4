"""Events as JSON (RFC 8259): exact, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import (
    PydanticCustomError,
    PydanticSerializationError,
    SchemaSerializer,
    core_schema,
    from_json,
    to_json,
)

from commons_events.errors import DeserializationError, SerializationError, UnknownEventTypeError
from commons_events.event._contents import contents_check, holds_itself
from commons_events.event._reading import read_other
from commons_events.event._registry import registry
from commons_events.event._scalars import begins_with_envelope
from commons_events.event._secrets import IN_BYTES
from commons_events.event._values import MAX_DIGITS

if TYPE_CHECKING:
    from commons_events.event._event import Event

__all__ = ["Life", "describe", "identify", "read_any", "reader", "refused", "stating", "writer"]

E = TypeVar("E", bound="Event")

_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_N, _I = b"NI"
"""The first bytes of NaN and Infinity: one byte is searched for many times as fast as a word."""
_TOO_MANY_DIGITS = b"0" * (MAX_DIGITS + 1)
_MOST_LEVELS = 200
"""How deep objects and arrays may lie in each other; pydantic's parser reads no deeper ones."""


# --- writing ---------------------------------------------------------------------------------------------------


class Life(NamedTuple):
    """What is said of an event beside its values; `Event` keeps it."""

    being_made: str
    made: str
    set: Callable[[Any, str], None]


def writer(event_class: type[E]) -> Callable[[E], bytes]:
    """What writes this class's events as JSON; made once a class, as `reader` is."""
    to_json = event_class.__pydantic_serializer__.to_json
    checked = partial(to_json, warnings="error")
    if event_class._holds_secret:  # a context costs time
        to_json, checked = partial(to_json, context=IN_BYTES), partial(checked, context=IN_BYTES)
    check_contents = contents_check(event_class._pydantic_schema, event_class)
    namespace = _quiet_namespace()
    if not _warnings_are_noticed():
        namespace[_NOTICE] = {}

    def write(event: E) -> bytes:
        try:
            data = b"" if _NOTICE in namespace else to_json(event)
            if _NOTICE in namespace:
                data = checked(event)  # a list may have been changed since, or model_construct given anything
            check_contents(event.__dict__)
        except (PydanticSerializationError, PydanticCustomError) as error:
            raise SerializationError(f"{_name(event)} cannot be written as JSON: {error}.") from error
        if (_N in data or _I in data) and (b"NaN" in data or b"Infinity" in data):
            _refuse_non_finite(event, data)
        if len(data) > MAX_DIGITS and _TOO_MANY_DIGITS in data.translate(_DIGITS):
            _refuse_long_ints(event, data)
        return data

    quiet = cast(Callable[[E], bytes], FunctionType(write.__code__, namespace, closure=write.__closure__))
    return _shallow(quiet) if holds_itself(event_class._pydantic_schema) else quiet


def _shallow(write: Callable[[E], bytes]) -> Callable[[E], bytes]:
    """What writes events of a recursive class, as ``write`` does, but for those that readers would refuse."""

    def write_shallow(event: E) -> bytes:
        data = write(event)
        if data.count(b"{") + data.count(b"[") > _MOST_LEVELS:
            try:
                from_json(data, allow_inf_nan=False)
            except ValueError as error:
                raise SerializationError(
                    f"{_name(event)} cannot be written as JSON: it is nested deeper than {_MOST_LEVELS} levels, which "
                    "readers refuse. Keep what is deep as a list of its parts."
                ) from error
        return data

    return write_shallow


_NOTICE = "__warningregistry__"


def _quiet_namespace() -> dict[str, Any]:
    """The globals of a function of ours, for a function that notices pydantic's warnings.

    To let pydantic raise for a value that is not of its field's type costs half as much as writing; to let it warn
    costs nothing. A warning looks for the registry in its caller's globals, and puts one there if need be: that is
    how it is noticed, in whatever thread. Where the name of the module is None, nobody else hears of it.
    """
    namespace = {**globals(), "__name__": None}
    namespace.pop(_NOTICE, None)
    return namespace


@cache
def _warnings_are_noticed() -> bool:
    """Whether this interpreter and this pydantic work as `_quiet_namespace` says."""
    namespace, write = _quiet_namespace(), SchemaSerializer(core_schema.str_schema()).to_json

    def probe(value: Any) -> bytes:
        return write(value)

    quiet = FunctionType(probe.__code__, namespace, closure=probe.__closure__)
    try:
        quiet("text")
        before = _NOTICE in namespace
        quiet(1)
    except UserWarning:
        return False
    return not before and _NOTICE in namespace


def stating(event_class: type[E], write: Callable[[E], bytes], source: str) -> Callable[[E], bytes]:
    """What writes events without a source as ``write`` writes them with this one: for a third of a copy's cost."""
    if not begins_with_envelope(event_class.__pydantic_core_schema__):
        return lambda event: write(event.with_source(source))
    stated = b',"source":' + to_json(source) + b',"timestamp":'

    def write_stating(event: E) -> bytes:
        # before these members stand texts alone, in which a quotation mark has a backslash before it
        before, none, after = write(event).partition(b',"source":null,"timestamp":')
        return before + stated + after if none else write(event.with_source(source))

    return write_stating


def _refuse_non_finite(event: Event, data: bytes) -> None:
    """Raise where NaN or infinity stands in ``data`` as a number; inside a text it is just a word."""
    found = _path(json.loads(data, parse_int=str, parse_float=str, parse_constant=_Constant), _Constant)
    if found is not None:
        raise SerializationError(
            f"{_name(event)} cannot be written as JSON: {found[0]} is {found[1].name}, which JSON does not have (RFC "
            "8259, section 6). Use None, or a format that has it."
        )


def _refuse_long_ints(event: Event, data: bytes) -> None:
    found = _path(json.loads(data, parse_int=_long, parse_float=str), _LongInt)
    if found is not None:
        raise SerializationError(
            f"{_name(event)} cannot be written as JSON: {found[0]} is an int of more than {MAX_DIGITS} digits, which "
            "readers refuse. Use a str."
        )


class _Constant:
    def __init__(self, name: str) -> None:
        self.name = name


class _LongInt:
    pass


def _long(digits: str) -> object:
    return _LongInt() if len(digits.lstrip("-")) > MAX_DIGITS else digits


def _path(value: Any, kind: type[Any], path: str = "") -> tuple[str, Any] | None:
    """Where in parsed JSON the first value of ``kind`` stands."""
    if isinstance(value, kind):
        return path.lstrip("."), value
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for key, item in items:
        found = _path(item, kind, f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}")
        if found is not None:
            return found
    return None


# --- reading ---------------------------------------------------------------------------------------------------


def reader(
    event_class: type[E], make: Callable[[bytes], E], quick: Callable[[bytes], E] | None, *, checks: bool, life: Life
) -> Callable[[bytes | bytearray | str], E]:
    """What reads this class's events from JSON; made once a class, since looking things up costs as much as parsing.

    Args:
        event_class: the class.
        make: makes a bare event, or raises a ValidationError.
        quick: makes most of them as ``make`` does, in less time, and raises for the others; or None.
        checks: whether the class has a ``__post_init__`` of its own.
        life: of the event.
    """
    first, second = (make, None) if quick is None else (quick, make)
    being_made, made, set_life = life

    def read(data: bytes | bytearray | str) -> E:
        if type(data) is not bytes:
            data = _as_bytes(data, event_class)
        if _N in data or _I in data:
            _refuse_constants(data, event_class)
        try:
            event = first(data)
        except Exception as error:  # noqa: BLE001  # a user's validators: what they raise refuses these bytes
            if second is None:
                return _read_other(data, event_class, error)
            try:
                event = second(data)
            except Exception as error:  # noqa: BLE001
                return _read_other(data, event_class, error)
        if checks:
            set_life(event, being_made)
            try:
                event.__post_init__()
            except Exception as error:  # a user's code, and whatever it raises refuses these bytes
                raise refused(event, error) from error
        set_life(event, made)
        return event

    return read


def refused(event: Event, error: Exception) -> DeserializationError:
    """What an event's own ``__post_init__`` would not have."""
    return DeserializationError(
        f"{type(event).__qualname__} {event.event_type!r} {event.version}: __post_init__ refused the event "
        f"{event.event_id!r} that was read: {type(error).__name__}: {error}"
    )


def read_any(data: bytes | bytearray | str, event_class: type[E]) -> E:
    """The event in ``data``, by the type that stands in it; of a class that is an ``event_class``."""
    data = _as_bytes(data, event_class)
    _refuse_constants(data, event_class)
    fields = _parse(data, event_class)
    event_type = fields.get("event_type")
    if not isinstance(event_type, str):
        raise UnknownEventTypeError(
            f"{event_class.__qualname__}: the bytes have no event_type, so their class is not known; read them with "
            "the class itself."
        )
    found = registry.find(event_type, _text(fields.get("version")))
    if not issubclass(found, event_class):
        raise DeserializationError(
            f"{event_class.__qualname__}: the bytes are an event of type {event_type!r}, which is {found.__qualname__}."
        )
    return found.from_json(data)


def _as_bytes(data: object, event_class: type[Event]) -> bytes:
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    if not isinstance(data, str):
        raise TypeError(f"from_json takes bytes, bytearray or str, not {type(data).__name__}.")
    try:
        return data.encode()
    except UnicodeEncodeError as error:
        raise DeserializationError(f"{event_class.__qualname__}: not JSON: the text is not UTF-8: {error}.") from error


def _refuse_constants(data: bytes, event_class: type[Event]) -> None:
    """Raise where NaN or infinity stands in ``data`` as a number, which pydantic would take."""
    if b"NaN" not in data and b"Infinity" not in data:
        return
    try:
        parsed = json.loads(data, parse_int=str, parse_float=str, parse_constant=_Constant)
    except (ValueError, RecursionError):
        return  # not JSON at all: the parser proper says why and where
    constant = _path(parsed, _Constant)
    if constant is not None:
        raise DeserializationError(
            f"{event_class.__qualname__}: not JSON: {constant[0]} is {constant[1].name} (RFC 8259, section 6)."
        )


def _read_other(data: bytes, event_class: type[E], error: Exception) -> E:
    """What did not fit: it may be of a subclass, or of another version that this class may read all the same."""
    if not _tells_who(error):
        raise DeserializationError(_complaint(event_class, error)) from error
    fields = _parse(data, event_class)
    event_type, version = fields.get("event_type", event_class.event_type), _text(fields.get("version"))
    own = event_class.event_type, event_class.schema_info().version
    if not isinstance(event_type, str) or (event_type == own[0] and version in (None, own[1])):
        raise DeserializationError(_complaint(event_class, error)) from error
    try:
        other = read_other(
            event_class,
            event_type,
            version,
            exact=lambda cls: cls.from_json(data),
            resolve=lambda cls: cls.from_json(to_json({**fields, **_identity_of(cls)})),
        )
    except DeserializationError as refusal:
        raise refusal from refusal.__cause__ or error
    return cast(E, other)


def _tells_who(error: Exception) -> bool:
    """Whether type or version did not fit, or a validator that sees the whole refused it before they were looked at."""
    if not isinstance(error, ValidationError):
        return True
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        where, what = problem["loc"], problem["type"]
        if where in (("event_type",), ("version",)) or (not where and what not in ("json_invalid", "model_type")):
            return True
    return False


def _identity_of(event_class: type[Event]) -> dict[str, str]:
    return {"event_type": event_class.event_type, "version": event_class.schema_info().version}


def identify(data: bytes | bytearray | str) -> tuple[str, str | None] | None:
    """The event type and version that JSON bytes state, or None where they state no type."""
    try:
        fields = from_json(data)
    except ValueError:
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("event_type"), str):
        return None
    return fields["event_type"], _text(fields.get("version"))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _parse(data: bytes, event_class: type[Event]) -> dict[str, Any]:
    try:
        fields = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise DeserializationError(f"{event_class.__qualname__}: not JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise DeserializationError(f"{event_class.__qualname__}: a JSON object is needed, not {type(fields).__name__}.")
    return fields


def describe(error: Exception) -> str:
    """The problems of a ValidationError on one line: where, and what; of another error its class and text."""
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    problems: list[str] = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False)[:_MOST_PROBLEMS]:
        place = ".".join(str(part) for part in problem["loc"])
        problems.append(f"{place}: {problem['msg']}" if place else problem["msg"])
    if error.error_count() > _MOST_PROBLEMS:
        problems.append(f"and {error.error_count() - _MOST_PROBLEMS:,} more")
    return "; ".join(problems)


_MOST_PROBLEMS = 20
"""A message that names them travels to logs and dead letters."""


def _complaint(event_class: type[Event], error: Exception) -> str:
    identity = f"{event_class.event_type!r} {event_class.schema_info().version}"
    return f"{event_class.__qualname__} {identity} cannot be read from JSON: {describe(error)}."


def _name(event: Event) -> str:
    return f"{type(event).__qualname__} {event.event_id!r}"
