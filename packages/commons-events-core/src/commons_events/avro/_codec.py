"""One event class and Avro: its schema, its encoder and decoder, and those that read other writers' bytes as it."""

from __future__ import annotations

from functools import cached_property
from struct import error as StructError  # noqa: N812
from threading import Lock
from typing import Any, NoReturn

from commons_events.avro._decoder import Decoder
from commons_events.avro._derive import derive
from commons_events.avro._document import schema_text
from commons_events.avro._encoder import Encoder
from commons_events.avro._schema import SchemaNode, canonical_text, crc64
from commons_events.avro._source import Source
from commons_events.avro._wire import NotAvroError, to_text
from commons_events.errors import DeserializationError, EventDefinitionError, SerializationError
from commons_events.event import Event

__all__ = ["FAILURES", "HEADER", "Codec", "codec_of", "explain"]

MAGIC = b"\xc3\x01"
"""How single-object encoding begins (specification, section Single-object encoding)."""
HEADER = 10
"""Bytes of its header: the magic, and the schema's fingerprint."""
FAILURES = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, StructError, RecursionError)
"""What encoders and decoders raise, for `explain` to put into words."""
_MOST_WRITERS = 64
"""Writers' schemas that one class keeps a decoder for."""


class Codec:
    """What one class needs; made when it is first used, or when the class is created with ``schema_type="avro"``.

    Raises:
        EventDefinitionError: the class has a field that Avro cannot hold.
    """

    def __init__(self, event_class: type[Event]) -> None:
        self.event_class = event_class
        self.info = event_class._schema_info
        self.node = derive(event_class)
        self._encoder: Encoder | None = None
        self._decoder: Decoder | None = None
        self._others: dict[str, Decoder] = {}
        """By the writer's schema; the one that was used last comes last."""
        self._lock = Lock()

    @cached_property
    def text(self) -> str:
        """The schema as JSON text."""
        return schema_text(self.node)

    @cached_property
    def head(self) -> bytes:
        """What all bytes of the class begin with: the header, the event type and the version."""
        fingerprint = crc64(canonical_text(self.node).encode())
        return MAGIC + fingerprint + to_text(self.event_class.event_type) + to_text(self.info.version)

    @property
    def name(self) -> str:
        """What the class is called in messages."""
        return f"{self.event_class.__qualname__} {self.event_class.event_type!r} {self.info.version}"

    def encode(self, event: Event) -> bytes:
        """The event in single-object encoding."""
        encoder = self._encoder
        if encoder is None:
            encoder = self._encoder = Encoder(self.node, self.event_class.__qualname__, head=self.head)
        try:
            return encoder.encode(event)
        except SerializationError:
            raise
        except FAILURES as error:
            place, _ = encoder.source.whereabouts(error)
            raise SerializationError(
                f"{type(event).__qualname__} {event.event_id!r} cannot be written as Avro: "
                f"{f'{place}: ' if place else ''}{_reason(error)}."
            ) from error

    def decode(self, data: bytes) -> Any:
        """The event in bytes that begin with this codec's ``head``."""
        decoder = self._decoder
        if decoder is None:
            decoder = self._decoder = Decoder(
                self.node, self.node, self.event_class.__qualname__, constants=True, start=len(self.head)
            )
        try:
            return decoder.decode(data, len(self.head))
        except DeserializationError:
            raise
        except FAILURES as error:
            explain(error, decoder.source, f"{self.name} cannot be read from Avro", data)

    def resolve(self, data: bytes, writer: SchemaNode, text: str) -> Any:
        """The event in bytes that another schema wrote, whose text this is, by the rules of Schema Resolution."""
        decoder = self._resolver(writer, text)
        try:
            return decoder.decode(data, HEADER)
        except DeserializationError:
            raise
        except FAILURES as error:
            what = f"{self.name} cannot be read from what {writer.name} ({data[2:HEADER].hex()}) wrote as Avro"
            explain(error, decoder.source, what, data)

    def _resolver(self, writer: SchemaNode, text: str) -> Decoder:
        with self._lock:
            decoder = self._others.get(text)
            if decoder is None:
                title = f"{self.event_class.__qualname__} from {writer.name}"
                decoder = self._others[text] = Decoder(writer, self.node, title, constants=True)
                if len(self._others) > _MOST_WRITERS:
                    del self._others[next(iter(self._others))]
            else:
                self._others[text] = self._others.pop(text)
        return decoder


def explain(error: Exception, source: Source, what: str, data: bytes) -> NoReturn:
    """Raise what a decoder met as a `DeserializationError` with the place and the reason."""
    place, position = source.whereabouts(error)
    where = f"{place}, " if place else ""
    if position is not None:
        where += f"byte {min(position, len(data)):,} of {len(data):,}"
    if isinstance(error, IndexError | StructError):
        reason = "the bytes end early"
        if position is not None and position > len(data):
            reason += f", here or by a length just before that points {position - len(data):,} bytes past their end"
    else:
        reason = _reason(error)
    raise DeserializationError(f"{what}: {f'{where}: ' if where else ''}{reason}.") from error


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: {error.reason} (byte {error.start} of the text)"
    if isinstance(error, AttributeError) and error.name == "encode":
        return f"a {type(error.obj).__qualname__}, where a str is needed"
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return f"{type(error).__name__}: {text}"[:500] if type(error) not in _OWN else text[:500]


_OWN = (ValueError, NotAvroError)


def codec_of(event_class: type[Event]) -> Codec:
    """The codec of a class, kept at the class itself; a class that its decorator gave another type gets a new one.

    Raises:
        EventDefinitionError: the class has a field that Avro cannot hold.
    """
    codec: Codec | None = event_class.__dict__.get("_avro_codec")
    if codec is None or codec.info is not event_class._schema_info:
        if "event_type" not in event_class.__dict__:
            raise EventDefinitionError("Event is the base class and has no schema; take a subclass.")
        codec = Codec(event_class)
        type.__setattr__(event_class, "_avro_codec", codec)
    return codec
