"""`Event`: a fact, typed."""

# Annotations are not postponed here: pydantic evaluates a base's anew for every subclass, and text takes it long.

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from inspect import get_annotations, signature
from sys import _getframe, modules
from threading import RLock
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast, get_origin
from weakref import WeakSet

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import SchemaSerializer, SchemaValidator, core_schema

from commons_events.errors import (
    DeserializationError,
    EventDefinitionError,
    FrozenEventError,
    PluginError,
    UnknownEventTypeError,
    UnknownSchemaError,
)
from commons_events.event import _json
from commons_events.event._envelope import accepted_names, check_envelope, check_names
from commons_events.event._exact import exact_schema, unsealed
from commons_events.event._inheriting import Inheriting
from commons_events.event._metadata import MetadataField
from commons_events.event._registry import registry
from commons_events.event._scalars import aware_times, is_plain, is_repeatable
from commons_events.event._schema import SchemaInfo, check_event_type, check_version, decorator_is_pending
from commons_events.event._secrets import holds_secret
from commons_events.plugins import SERIALIZERS, names, serializer, serializer_of, when_changed
from commons_events.runtime import current_runtime

if TYPE_CHECKING:
    from commons_events.serialization import Serializer

__all__ = ["Event"]

E = TypeVar("E", bound="Event")


def _new_id() -> str:
    return current_runtime().new_id()


def _now() -> datetime:
    return current_runtime().now()


for _factory in (_new_id, _now):  # pydantic asks each for its signature, for every class
    setattr(_factory, "__signature__", signature(_factory))  # noqa: B010  # no type has it
_TRUSTED_FACTORIES = frozenset((_new_id, _now, dict, list))
_BEING_MADE, _MADE = "being made", "made"
_building = RLock()


def _finish(event: E) -> E:
    _set_life(event, _BEING_MADE)
    event.__post_init__()
    _set_life(event, _MADE)
    return event


def _maker(event_class: type[E], filler: SchemaValidator, *, plain: bool) -> Callable[[bytes], E]:
    """What makes bare events from JSON by all the rules; of a ``plain`` class by itself, which is quicker."""
    validate = filler.validate_json
    if plain:
        return validate
    return lambda data: validate(data, self_instance=event_class.__new__(event_class).being_made())


def _seal(event: "Event") -> "Event":
    """Finish an event that pydantic made, inside another model for instance; one that was given is finished."""
    try:
        _get_life(event)
    except AttributeError:
        _finish(event)
    return event


def _format_of_another_version(data: bytes, event_class: "type[Event]") -> "Serializer | None":
    """The format that the registered class of these bytes' own type and version is written in; None without one."""
    try:
        codec = serializer_of(data, registry.formats())
    except (UnknownEventTypeError, UnknownSchemaError):
        return None
    identity = codec.identify(data)
    writer = None if identity is None else registry.get(*identity)
    if writer is None or writer is event_class:
        return None
    written = serializer(writer.schema_info().schema_type)
    return written if written.content_type == codec.content_type else None


def _format_of(data: bytes) -> "Serializer":
    """The format of these bytes: that of a registered class, so that no other is loaded for nothing."""
    try:
        return serializer_of(data, registry.formats())
    except UnknownEventTypeError:
        return serializer_of(data)


def _let_pickle_find(made: type[BaseModel]) -> None:
    """Have a generic class with its types be an attribute of its module."""
    name, attributes = made.__name__, vars(modules[made.__module__])
    while attributes.setdefault(name, made) is not made:
        name += "_"


class _LateFiller:
    """In the place of a class's own ``filler`` until the names in its annotations are known."""

    def __get__(self, event: "Event | None", owner: "type[Event]") -> SchemaValidator:
        if owner is Event:
            raise EventDefinitionError("Event is the base class; make a subclass that says what happened.")
        owner.model_rebuild(raise_errors=False)
        if owner.__dict__["filler"] is self:
            raise EventDefinitionError(
                f"{owner.__qualname__} is not fully defined: a name in its annotations is not known. Define it, then "
                f"call {owner.__qualname__}.model_rebuild()."
            )
        return owner.filler


class _Late:
    """In the place of a class's validator or serializer until its first use: many a class is only defined."""

    __slots__ = ("_attribute", "_event_class")

    def __init__(self, event_class: "type[Event]", attribute: str) -> None:
        self._event_class = event_class
        self._attribute = attribute

    def __getattr__(self, name: str) -> Any:
        if getattr(self._event_class, self._attribute) is self:
            self._event_class._build()
        return getattr(getattr(self._event_class, self._attribute), name)


class _SchemaText:
    """``SomeEvent.schema``: the schema in the form its registry takes."""

    def __get__(self, event: "Event | None", owner: "type[Event]") -> str:
        return serializer(owner.schema_info().schema_type).schema(owner)


class Event(BaseModel):
    """A fact that happened, typed: subclass it and declare fields as in any pydantic model.

    The envelope follows CloudEvents 1.0: ``event_type`` is its ``type``, ``event_id`` its ``id``, ``timestamp`` its
    ``time``; ``version``, ``correlation_id`` and ``causation_id`` travel as extensions. ``source`` is None until the
    event is sent; then the producer's own stands in the bytes and headers.

    ``__post_init__`` runs after every construction, decoding, copying and unpickling, and may assign to fields.
    After it the event does not change any more. An event equals its own round trip in every format.

    Class attributes:
        event_type: the type; by default the class's name.

    Raises:
        pydantic.ValidationError: (a ValueError) fields are missing, unknown or wrong; the message names all of them.
    """

    model_config = ConfigDict(
        extra="ignore",  # for bytes of a newer writer; a program's own unknown fields are refused in __init__
        ser_json_inf_nan="constants",  # so that NaN shows in the bytes and can be refused, instead of becoming null
        validate_by_name=True,
        validate_by_alias=True,
        protected_namespaces=(),
    )
    __slots__ = ("_life", "_unread")

    event_type: ClassVar[str]
    version: str = "1.0.0"
    event_id: str = Field(default_factory=_new_id)
    source: str | None = None
    timestamp: datetime = Field(default_factory=_now)
    correlation_id: str | None = None
    causation_id: str | None = None
    if TYPE_CHECKING:
        metadata: Mapping[str, Any] = {}  # pydantic gives every event its own
        schema: ClassVar[str]  # type: ignore[assignment]  # pydantic's deprecated method gives way to the attribute
    else:
        metadata: dict[str, Any] = Field(default_factory=dict)
        schema: ClassVar[_SchemaText] = _SchemaText()

    filler: ClassVar[SchemaValidator]
    """Fills a bare event, for serializers; pydantic's own validator also finishes what it makes."""
    _read_json: ClassVar[Callable[[bytes | bytearray | str], Any]]
    _write_json: ClassVar[Callable[[Any], bytes]]
    _encode: ClassVar[Callable[[Any], bytes]]
    """In the format of the class's ``schema_type``; looked up once a class, as it costs as much as to write."""
    _decode: ClassVar[Callable[[bytes], Any]]
    _schema_info: ClassVar[SchemaInfo] = SchemaInfo()
    _pydantic_schema: ClassVar[core_schema.CoreSchema]
    _names: ClassVar[frozenset[str]] = frozenset()
    _states_type: ClassVar[bool] = False
    _keeps_unread: ClassVar[bool] = False
    """Whether any event of the class has something to carry on: asking each would cost as much as copying it."""
    _holds_secret: ClassVar[bool] = False
    """Whether some value is masked wherever it is written but in bytes."""

    def __init__(self, /, **data: Any) -> None:
        _set_life(self, _BEING_MADE)
        filler = self.filler
        if not data.keys() <= self._names and not data.keys() <= self._own_names():
            # the validator would pass over unknown fields; told to forbid them, it names these and all else
            filler.validate_python(data, self_instance=self, extra="forbid")
        filler.validate_python(data, self_instance=self)
        self.__post_init__()
        _set_life(self, _MADE)

    # pydantic calls a custom __init__ when decoding, too; ours is for programs alone
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def __post_init__(self) -> None:
        """Check and complete the event; override it, and call ``super().__post_init__()`` first.

        A ValueError raised here reaches whoever constructs the event as it is; in decoding it is the cause of a
        `DeserializationError`.
        """

    # --- bytes -----------------------------------------------------------------------------------------------

    def to_json(self) -> bytes:
        """The whole event, envelope included, as one flat JSON object (RFC 8259) in UTF-8.

        Raises:
            SerializationError: a value that JSON cannot hold, such as NaN; the message says where.
        """
        return self._write_json()

    @classmethod
    def from_json(cls, data: bytes | bytearray | str) -> Self:
        """The event in ``data``. On `Event` itself, or another base, the class is found by the type in the bytes.

        Raises:
            DeserializationError: (a ValueError) the bytes are not such an event; the message says why.
            UnknownEventTypeError: no class is known for the type that the bytes name.
        """
        event: Self = cls._read_json(data)
        return event

    def serialize(self) -> bytes:
        """The whole event in the format of its ``schema_type``.

        Raises:
            SerializationError: a value that the format cannot hold.
            MissingDistributionError: the format's package is not installed.
        """
        return self._encode(self)  # type: ignore[call-arg]  # it is static

    @classmethod
    def deserialize(cls, data: bytes) -> Self:
        """The event in ``data``, which is in the format of the class's ``schema_type``.

        On `Event` itself the format and the class are found by what the bytes state. Bytes of another version of
        the class are read by the format's own rules within a major version, and by migrations beyond; also where the
        registered class of that version has another format.

        Raises:
            DeserializationError: (a ValueError) the bytes are not such an event; the message says why.
            MissingDistributionError: the format's package is not installed.
        """
        if cls is Event:
            return _format_of(data).decode(data, cls)
        try:
            event: Self = cls._decode(data)
        except DeserializationError:
            writers = _format_of_another_version(data, cls)
            if writers is None or writers is serializer(cls._schema_info.schema_type):
                raise
            return writers.decode(data, cls)
        except (AttributeError, TypeError) as error:
            if isinstance(data, bytes | bytearray):
                raise
            raise TypeError(f"deserialize takes bytes, not {type(data).__name__}.") from error
        return event

    def being_made(self) -> Self:
        """This event, which is bare (``cls.__new__(cls)``), for a serializer to fill and then call `finished`.

        It is filled by the class's ``filler``, with ``self_instance=``.
        """
        _set_life(self, _BEING_MADE)
        return self

    def finished(self) -> Self:
        """The event that a serializer has filled, after ``__post_init__``: from now on a fact.

        Raises:
            DeserializationError: ``__post_init__`` refused the event; what it raised is the cause.
        """
        try:
            self.__post_init__()
        except Exception as error:  # a user's code, and whatever it raises refuses these bytes
            raise _json.refused(self, error) from error
        _set_life(self, _MADE)
        return self

    def keep_unread(self, format: str, data: bytes) -> None:
        """Keep what a newer writer put into this event's bytes and its class does not know, for a serializer.

        It is no part of the value: two events are equal without it. Copies keep it; pickles and events that are made
        anew, such as by ``model_copy(update=…)``, do not.
        """
        type(self)._keeps_unread = True
        _set_unread(self, (format, data))

    def unread(self, format: str) -> bytes:
        """What `keep_unread` kept in this format, to be written again."""
        try:
            kept, data = _get_unread(self)
        except AttributeError:
            return b""
        return data if kept == format else b""

    # --- copies ----------------------------------------------------------------------------------------------

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy; with ``update``, a new event that has these fields instead, validated like any other.

        Raises:
            pydantic.ValidationError: (a ValueError) a field in ``update`` is unknown or wrong.
        """
        if not update:
            return self.__deepcopy__() if deep else self.__copy__()
        same = {name: value for name, value in self.__dict__.items() if name in self.model_fields_set | _IDENTITY}
        same.pop("event_type", None)
        event = type(self)(**{**same, **update})
        if self.__pydantic_extra__:
            event.__pydantic_extra__ = dict(self.__pydantic_extra__)
        return event

    def with_source(self, source: str) -> Self:
        """The same fact with its ``source`` stated, as a producer sends it."""
        event = type(self).__new__(type(self))
        assign = object.__setattr__  # as pydantic's own copy does, which looks everything up twice
        assign(event, "__dict__", {**vars(self), "source": source})
        assign(event, "__pydantic_fields_set__", {*self.__pydantic_fields_set__, "source"})
        extra, private = self.__pydantic_extra__, self.__pydantic_private__
        assign(event, "__pydantic_extra__", None if extra is None else dict(extra))
        assign(event, "__pydantic_private__", None if private is None else dict(private))
        _set_life(event, _get_life(self))
        return self._carried(event) if self._keeps_unread else event

    def __copy__(self) -> Self:
        return self._carried(_finish(super().__copy__()))

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self._carried(_finish(super().__deepcopy__(memo)))

    def _carried(self, copy: Self) -> Self:
        """The copy, with what `keep_unread` kept of this event."""
        with suppress(AttributeError):
            _set_unread(copy, _get_unread(self))
        return copy

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        _finish(self)

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> Self:
        """An event of values that are known to be valid; ``__post_init__`` runs all the same."""
        event = super().model_construct(_fields_set, **values)
        vars(event).setdefault("event_type", cls.event_type)
        return _finish(event)

    # --- a fact ----------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if name[0] == "_":
            super().__setattr__(name, value)
        elif _get_life(self) is not _BEING_MADE:
            raise FrozenEventError(
                f"{type(self).__qualname__} {self.event_id!r} is a fact and does not change: {name!r} cannot be "
                f"assigned. Make a new event: event.model_copy(update={{{name!r}: …}}); or assign in __post_init__."
            )
        elif type(value) is str and name in _PLAIN_TEXT and name in self.__pydantic_fields__:
            vars(self)[name] = value
            self.__pydantic_fields_set__.add(name)
        elif name in self.__pydantic_fields__ or name == "event_type":
            self.filler.validate_assignment(self, name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name[0] != "_":
            raise FrozenEventError(
                f"{type(self).__qualname__} is a fact and does not change: {name!r} cannot be deleted."
            )
        super().__delattr__(name)

    def __hash__(self) -> int:
        return hash(self.event_id)

    # --- the class -------------------------------------------------------------------------------------------

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # as for Event's own
        for attribute in ("filler", *_BY_CLASS):
            setattr(cls, attribute, Event.__dict__[attribute])
        own_annotations = cls.__dict__.get("__annotations__", {})  # noqa: RUF063  # itself, not a copy
        own_annotations.pop("event_type", None)  # annotated or not, it is the class's and no field
        check_names(cls, own_annotations, _METHODS | {"filler"})
        cls._states_type = "event_type" in cls.__dict__
        if cls._states_type:
            check_event_type(cls.event_type, f"{cls.__qualname__}.event_type")
        else:
            cls.event_type = cls.__name__
            base = cls.__bases__[0]
            if cls.__name__.startswith(f"{base.__name__}["):  # a generic event's: as that one is called, but for this
                cls.event_type = f"{base.__dict__.get('event_type', '')}{cls.__name__.removeprefix(base.__name__)}"

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        _inheriting.complete(cls)
        if not cls.__pydantic_generic_metadata__["origin"]:
            registry.register(cls, provisional=decorator_is_pending())
        elif not cls.__pydantic_generic_metadata__["parameters"]:
            registry.register_made(cls)

    if not TYPE_CHECKING:

        def __class_getitem__(cls, arguments: Any) -> Any:
            made = super().__class_getitem__(arguments)
            if isinstance(made, type) and made is not cls:
                caller = _getframe(1)
                if caller.f_locals is caller.f_globals:  # pydantic looks so itself, and would see this function
                    _let_pickle_find(made)
                if not made.__pydantic_generic_metadata__["parameters"]:
                    registry.recall_made(made)
            return made

    @classmethod
    def __pydantic_on_complete__(cls) -> None:
        if "event_type" not in cls.__dict__:
            return  # Event itself
        check_envelope(cls)
        version = cls.__pydantic_fields__["version"]
        if "_schema_info" not in cls.__dict__:  # else this is a rebuild, and the decorator has spoken
            if origin := cls.__pydantic_generic_metadata__["origin"]:
                cls._schema_info = cast("type[Event]", origin)._schema_info
                version.default = cls._schema_info.version
            else:
                if "version" not in get_annotations(cls):
                    version.default = "1.0.0"  # a version is not inherited
                check_version(version.default, f"{cls.__qualname__}.version")
                cls._schema_info = SchemaInfo(version=version.default, schema_type=cls._schema_info.schema_type)
        cls._pydantic_schema = cls.__pydantic_core_schema__
        if decorator_is_pending():
            cls._set_late()  # the decorator will say what the class is
        else:
            cls._define()

    @classmethod
    def model_rebuild(
        cls,
        *,
        force: bool = False,
        raise_errors: bool = True,
        _parent_namespace_depth: int = 2,
        _types_namespace: Mapping[str, Any] | None = None,
    ) -> bool | None:
        """Complete a class some of whose names were not known yet; with ``force``, make it anew from its fields.

        Returns:
            None where there was nothing to do, else whether the class is complete.
        """
        was_complete = cls.__pydantic_complete__
        done = super().model_rebuild(
            force=force,
            raise_errors=raise_errors,
            _parent_namespace_depth=_parent_namespace_depth + 1,
            _types_namespace=_types_namespace,
        )
        if done and was_complete:  # pydantic tells nobody of what is complete a second time
            if "_schema_info" in cls.__dict__:
                cls._schema_info = replace(cls._schema_info)  # what was made for the class before holds no more
            cls.__pydantic_on_complete__()
        return done

    @classmethod
    def _define(cls) -> None:
        """Let the class keep the promises of `_exact`, or refuse it."""
        cls.__pydantic_core_schema__ = exact_schema(
            cls._pydantic_schema,
            cls,
            event_type=cls.event_type,
            version=cls._schema_info.version,
            seal=_seal,
            trusted_factories=_TRUSTED_FACTORIES,
        )
        cls._set_late()
        name = cls._schema_info.schema_type
        if name != "json":
            if name not in (installed := names(SERIALIZERS)) and name.lower() in installed:
                raise EventDefinitionError(
                    f"{cls.__qualname__}: there is no format {name!r}; write schema_type={name.lower()!r}."
                )
            with suppress(PluginError):  # not installed, or not yet: serialize() says so, when it is asked for
                serializer(name).check(cls)

    @classmethod
    def _set_late(cls) -> None:
        for attribute in ("__pydantic_validator__", "__pydantic_serializer__", "filler"):
            setattr(cls, attribute, _Late(cls, attribute))
        for attribute in _BY_CLASS:
            setattr(cls, attribute, Event.__dict__[attribute])
        registry.changed()  # who remembers how the class is read and written asks again

    @classmethod
    def _build(cls) -> None:
        """Make the validators and the serializer, for the class's first use, whichever thread's that is."""
        if cls.__pydantic_core_schema__ is cls._pydantic_schema:
            cls._define()
        with _building:
            if not isinstance(cls.filler, _Late):
                return  # another thread was first
            schema = cls.__pydantic_core_schema__
            checks = cls.__post_init__ is not Event.__post_init__
            cls._holds_secret = holds_secret(cls._pydantic_schema)
            config = core_schema.CoreConfig(title=cls.__name__, ser_json_inf_nan="constants")
            cls.__pydantic_validator__ = SchemaValidator(schema, config, _use_prebuilt=False)
            cls.__pydantic_serializer__ = SchemaSerializer(schema, config, _use_prebuilt=False)
            filler = SchemaValidator(unsealed(schema), config, _use_prebuilt=False)
            quick = None
            if is_repeatable(schema, _TRUSTED_FACTORIES):
                quick = SchemaValidator(unsealed(aware_times(schema)), config, _use_prebuilt=False).validate_json
            make = _maker(cls, filler, plain=is_plain(schema))
            cls._read_json = staticmethod(_json.reader(cls, make, quick, checks=checks, life=_life))
            cls._write_json = _json.writer(cls)
            cls._names = accepted_names(cls)
            cls.filler = filler  # last: `complete` takes it as the proof that all is there

    @classmethod
    def complete(cls) -> None:
        """Make all that the class's first use needs.

        Raises:
            EventDefinitionError: a name in its annotations is not known, or a field's type cannot hold exactly.
        """
        if isinstance(cls.filler, _Late):  # asking for it raises where a name is missing
            cls._build()

    @classmethod
    def _own_names(cls) -> frozenset[str]:
        cls.complete()  # before, its names are those of the class above it
        return cls._names

    @classmethod
    def schema_info(cls) -> SchemaInfo:
        """Version, format and description of the class's schema."""
        return cls._schema_info

    @classmethod
    def restate(cls, event_type: str, info: SchemaInfo) -> None:
        """Give the class another type, version and format: what `EventSchema` does."""
        if cls._states_type and event_type != cls.event_type:
            raise EventDefinitionError(
                f"{cls.__qualname__} has event_type = {cls.event_type!r} in its body and {event_type!r} in "
                "@EventSchema; say it once."
            )
        cls.event_type = event_type
        cls._schema_info = info
        cls.__pydantic_fields__["version"].default = info.version
        if cls.__pydantic_complete__:
            cls._define()


_BY_CLASS = ("_read_json", "_write_json", "_encode", "_decode")
"""What is made once a class, at its first use."""
_with_format: WeakSet[type[Event]] = WeakSet()
"""Classes that have looked their format up."""
_PLAIN_TEXT = frozenset({"event_id", "source", "correlation_id", "causation_id"})
_IDENTITY = {"event_id", "timestamp"}

_get_life: Callable[[Event], str] = Event._life.__get__  # type: ignore[attr-defined]  # the slot, without a look-up
_set_life: Callable[[Event, str], None] = Event._life.__set__  # type: ignore[attr-defined]
_get_unread: Callable[[Event], tuple[str, bytes]] = Event._unread.__get__  # type: ignore[attr-defined]
_set_unread: Callable[[Event, tuple[str, bytes]], None] = Event._unread.__set__  # type: ignore[attr-defined]
_life = _json.Life(_BEING_MADE, _MADE, _set_life)
type.__setattr__(Event, "metadata", MetadataField())
_class_var: object = ClassVar
for _name in [name for name, annotation in get_annotations(Event).items() if get_origin(annotation) is _class_var]:
    del Event.__annotations__[_name]  # pydantic, which knows them now, would evaluate them anew for every subclass
_METHODS = frozenset(name for name, value in vars(Event).items() if isinstance(value, FunctionType) and name[0] != "_")
Event.filler = _LateFiller()  # type: ignore[assignment]


_inheriting = Inheriting(Event)


def _core_schema(cls: type[Event], source: Any, handler: GetCoreSchemaHandler, /) -> core_schema.CoreSchema:
    return _inheriting.core_schema(cls, handler)


Event.__get_pydantic_core_schema__ = classmethod(_core_schema)  # type: ignore[method-assign, assignment]


def _read_late(cls: type[Event], data: bytes | bytearray | str) -> Event:
    if cls is Event:
        return _json.read_any(data, Event)
    cls.complete()
    return cls.from_json(data)


def _write_late(event: Event) -> bytes:
    type(event).complete()
    return event._write_json()


def _look_up_format(cls: type[Event]) -> None:
    codec = serializer(cls.schema_info().schema_type)
    encode, decode = codec.encoder(cls), codec.decoder(cls)
    _with_format.add(cls)
    cls._encode, cls._decode = staticmethod(encode), staticmethod(decode)


def _encode_late(event: Event) -> bytes:
    _look_up_format(type(event))
    return event.serialize()


def _decode_late(cls: type[Event], data: bytes) -> Event:
    _look_up_format(cls)
    event: Event = cls._decode(data)
    return event


def _forget_formats() -> None:
    for cls in list(_with_format):
        cls._encode, cls._decode = Event.__dict__["_encode"], Event.__dict__["_decode"]
    _with_format.clear()


Event._read_json = classmethod(_read_late)  # type: ignore[assignment]
Event._write_json = _write_late
Event._encode = staticmethod(_encode_late)
Event._decode = classmethod(_decode_late)  # type: ignore[assignment]
when_changed(_forget_formats)
