"""`ProtobufSerializer`: the plugin."""

from __future__ import annotations

from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast
from weakref import WeakSet

from commons_events.errors import (
    DeserializationError,
    MissingDistributionError,
    SerializationError,
    UnknownEventTypeError,
)
from commons_events.event import Event, read_other, registry
from commons_events.log import logger
from commons_events.plugins import SERIALIZERS, install_hint
from commons_events.protobuf._agreement import check_versions, disagreement
from commons_events.protobuf._identity import identify
from commons_events.protobuf._plan import plan_of
from commons_events.protobuf._wire import WireError
from commons_events.serialization import Serializer

if TYPE_CHECKING:
    from commons_events.protobuf._codec import ClassCodec

__all__ = ["ProtobufSerializer"]

E = TypeVar("E", bound=Event)


class ProtobufSerializer(Serializer):
    """Protobuf's binary format, version 3 of the language: the event's own message, envelope included.

    Raises:
        MissingDistributionError: the package ``protobuf`` is not installed; the message has the line to type.
    """

    name: ClassVar[str] = "protobuf"
    content_type: ClassVar[str] = "application/protobuf"
    """As draft-ietf-dispatch-mime-protobuf registers it; older systems say ``application/x-protobuf``."""

    def __init__(self) -> None:
        if not _is_installed():
            raise MissingDistributionError(
                f"Events with schema_type='protobuf' need the package protobuf. {install_hint(SERIALIZERS, self.name)}"
            )
        self._warned: WeakSet[type[Event]] = WeakSet()

    def encode(self, event: Event) -> bytes:
        """The bytes of an event; those of unknown fields that it was read with are written again.

        Raises:
            SerializationError: an int does not fit into 64 bits, or a text is not UTF-8; the message says where.
        """
        codec = _codec_of(type(event))
        if codec is None:
            raise SerializationError("Event is the base class; make a subclass that says what happened.")
        try:
            data = codec.encode(event, 0)
        except WireError as problem:
            raise SerializationError(
                f"{type(event).__qualname__} {event.event_id!r} cannot be written as Protobuf: {problem}."
            ) from (problem.__cause__ or problem)
        return data + event.unread(self.name) if codec.keeps else data

    def decode(self, data: bytes, event_class: type[E]) -> E:
        """The event in ``data``: by the class's own field numbers, in whatever order they stand there."""
        codec = _codec_of(event_class)
        if codec is None:
            return self._decode_any(data, event_class)
        strange: list[int] = []
        try:
            message = codec.parse(data)
            if message.f2040 != codec.event_type or message.f2041 != codec.version:
                return self._decode_other(codec, message.f2040, message.f2041, data, event_class)
            event: E = codec.fill(message, data, 0, strange)
        except codec.FAILURES as error:
            identity = identify(data)
            if identity and identity not in ((codec.event_type, codec.version), (codec.event_type, None)):
                # what another class means by its numbers need not even be a message of this one
                return self._decode_other(codec, *identity, data, event_class)
            raise self._refusal(codec, error, data) from (error.__cause__ or error)
        return codec.keep(event, data) if strange else event

    def _decode_other(
        self, codec: ClassCodec, event_type: str, version: str | None, data: bytes, event_class: type[E]
    ) -> E:
        """Bytes of another type or version, or that state none and so leave it to the class that they are read as."""
        if not data:
            raise DeserializationError(f"{event_class.__qualname__} cannot be read from Protobuf: there are no bytes.")
        event_type, version = event_type or codec.event_type, version or codec.version
        if (event_type, version) == (codec.event_type, codec.version):
            return self.resolve(data, event_class)
        # a version of the class's own and another one are read alike: by the numbers

        def read(cls: type[Event]) -> Event:
            self._agree(event_type, version, cls)
            return self.resolve(data, cls)

        return cast(E, read_other(event_class, event_type, version, exact=read, resolve=read))

    @staticmethod
    def _agree(event_type: str, version: str, event_class: type[Event]) -> None:
        """Raise where the class that has written the bytes is known, and means something else by a number."""
        writer = registry.classes().get((event_type, version))
        codec = _codec_of(event_class)
        if writer is None or codec is None or writer is event_class or writer in codec.agrees:
            return
        if writer.schema_info().schema_type == "protobuf":
            problem = disagreement(plan_of(writer), codec.file)
            if problem is not None:
                raise DeserializationError(
                    f"{event_class.__qualname__} {codec.event_type!r} {codec.version} cannot be read from what "
                    f"{writer.__qualname__} {version} wrote as Protobuf: {problem}"
                )
        codec.agrees.add(writer)

    def resolve(self, data: bytes, event_class: type[E]) -> E:
        """The event in bytes of another version, by Protobuf's own rules: fields are known by their numbers.

        What the bytes lack is the class's default; what the class does not know stays with the event, and is written
        with it again.

        Raises:
            DeserializationError: a field without a default is missing, or has another type.
        """
        codec = _codec_of(event_class)
        assert codec is not None
        strange: list[int] = []
        try:
            event: E = codec.fill(codec.parse(data), data, 0, strange)
        except codec.FAILURES as error:
            raise self._refusal(codec, error, data) from (error.__cause__ or error)
        return codec.keep(event, data) if strange else event

    @staticmethod
    def _refusal(codec: ClassCodec, error: Exception, data: bytes) -> DeserializationError:
        problem = error if isinstance(error, WireError) else codec.misfit(error, 0, data, {})
        return DeserializationError(
            f"{codec.file.event_class.__qualname__} {codec.event_type!r} {codec.version} cannot be read from Protobuf: "
            f"{problem}."
        )

    def _decode_any(self, data: bytes, event_class: type[E]) -> E:
        identity = identify(data)
        if identity is None:
            raise UnknownEventTypeError(
                f"{event_class.__qualname__}: the bytes are no Protobuf message with an event_type (field 2040), so "
                "their class is not known; read them with the class itself."
            )
        found = registry.find(*identity)
        if not issubclass(found, event_class):
            raise DeserializationError(
                f"{event_class.__qualname__}: the bytes are an event of type {identity[0]!r}, which is "
                f"{found.__qualname__}."
            )
        return self.decode(data, found)

    def schema(self, event_class: type[Event]) -> str:
        """The text of a .proto file that holds the class's message, and all that it needs but Google's own types."""
        from commons_events.protobuf._text import render

        return render(plan_of(event_class))

    def identify(self, data: bytes) -> tuple[str, str | None] | None:
        """The fields 2040 and 2041; they stand first in what is written here, and may stand anywhere."""
        return identify(data)

    def check(self, event_class: type[Event]) -> None:
        """Raise `EventDefinitionError` where Protobuf cannot hold a field of the class, or its numbers clash.

        They may clash with one another, with the lock file, or with those of another version that is registered, since
        versions within a major one are read by the numbers alone.
        """
        check_versions(plan_of(event_class))

    def leaving(self, event_class: type[Event]) -> None:
        """Warn, once a class, where numbers come from the order of the fields alone: others will read by them."""
        if event_class in self._warned:
            return
        self._warned.add(event_class)
        unlocked = plan_of(event_class).unlocked
        if unlocked:
            logger().warning(
                "protobuf field numbers are not locked",
                event_type=event_class.event_type,
                fields=", ".join(unlocked),
                advice="they follow the order of declaration, and a field in between moves them all: write the lock "
                f"file with `commons-events schema lock {event_class.__module__}`, or state FieldNumber(…)",
            )


def _is_installed() -> bool:
    try:
        return find_spec("google.protobuf") is not None
    except ModuleNotFoundError:  # there is no package google at all
        return False


def _codec_of(event_class: type[Event]) -> ClassCodec | None:
    """The class's codec, made when it is first asked for; None for a base class that is no event by itself."""
    codec: ClassCodec | None = event_class.__dict__.get(_ATTRIBUTE)
    if codec is not None and codec.info is event_class._schema_info and codec.filler is event_class.filler:
        return codec
    if "event_type" not in event_class.__dict__:
        return None
    from commons_events.protobuf._codec import ClassCodec

    with _making:
        present = event_class.__dict__.get(_ATTRIBUTE)
        if present is not codec and present is not None:
            return cast("ClassCodec", present)  # another thread has made it meanwhile
        made = ClassCodec(plan_of(event_class))
        made.keeps = codec is not None and codec.keeps
        type.__setattr__(event_class, _ATTRIBUTE, made)  # on the class, so that it goes when the class goes
    return made


_making = Lock()
_ATTRIBUTE = "_protobuf_codec"
