"""Avro as a format: single-object encoding for the bytes, the schema's JSON for registries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, NamedTuple, TypeVar, cast

from commons_events.avro._codec import FAILURES, HEADER, MAGIC, Codec, codec_of
from commons_events.avro._resolve import scales
from commons_events.avro._schema import SchemaNode, canonical_form, crc64, parse
from commons_events.avro._wire import read_text
from commons_events.errors import DeserializationError, UnknownSchemaError
from commons_events.event import Event, read_other, registry
from commons_events.serialization import SchemaStore, Serializer, schemas

__all__ = ["AvroSerializer"]

E = TypeVar("E", bound=Event)


class AvroSerializer(Serializer):
    """Avro 1.12, single-object encoding: ``C3 01``, the CRC-64-AVRO of the writer's schema, the event.

    Args:
        store: where the schemas of writers come from; by default the process's own.
    """

    name: ClassVar[str] = "avro"
    content_type: ClassVar[str] = "application/vnd.apache.avro.binary"

    def __init__(self, store: SchemaStore = schemas) -> None:
        self._store = store

    def encode(self, event: Event) -> bytes:
        """The event in single-object encoding."""
        cls = type(event)
        codec = cls.__dict__.get("_avro_codec")
        if codec is None or codec.info is not cls._schema_info:
            codec = codec_of(cls)
        return cast(bytes, codec.encode(event))

    def decode(self, data: bytes, event_class: type[E]) -> E:
        """The event in ``data``; what another version of the class wrote is resolved.

        Raises:
            DeserializationError: the bytes are not such an event.
            UnknownSchemaError: the writer's schema is not known.
            UnknownEventTypeError: no class is known for the type that the bytes name.
        """
        codec = event_class.__dict__.get("_avro_codec")
        if codec is None or codec.info is not event_class._schema_info:
            if "event_type" not in event_class.__dict__:
                return self._decode_by_identity(data, event_class)
            codec = codec_of(event_class)
        if data.startswith(codec.head):
            return cast(E, codec.decode(data))
        return self._decode_other(data, event_class, codec)

    def schema(self, event_class: type[Event]) -> str:
        """The class's Avro schema, as JSON text."""
        return codec_of(event_class).text

    def check(self, event_class: type[Event]) -> None:
        """Derive the schema, so that what Avro cannot hold is an error when the class is created."""
        codec_of(event_class)

    def fingerprint(self, schema: str) -> bytes:
        """The CRC-64-AVRO of a schema's Parsing Canonical Form."""
        return crc64(canonical_form(schema).encode())

    def identify(self, data: bytes) -> tuple[str, str | None] | None:
        """The event type and version in the bytes, found by their schema; None where they are no Avro of an event.

        Raises:
            UnknownSchemaError: the writer's schema is not known.
        """
        try:
            return _identity(data, self._writer(data, "These bytes"))
        except UnknownSchemaError:
            raise
        except DeserializationError:
            return None

    # --- bytes of another writer -----------------------------------------------------------------------------

    def _writer(self, data: bytes, what: str) -> _Written:
        """The schema that these bytes were written with, by the fingerprint in their header."""
        if data[:2] != MAGIC or len(data) < HEADER:
            raise DeserializationError(
                f"{what}: not Avro's single-object encoding, which begins with C3 01 and 8 bytes of fingerprint; these "
                f"{len(data):,} bytes begin with {data[:4].hex(' ') or 'nothing'}."
            )
        unfit: list[str] = []

        def choose(texts: Sequence[str]) -> str | None:
            known = [_parsed(text) for text in reversed(texts)]
            chosen = _chosen(_identity_in(data, known[0].node), known)
            if chosen is None:
                unfit.extend(texts)
            return chosen

        try:
            return _parsed(self._store.find("avro", bytes(data[2:HEADER]), choose))
        except UnknownSchemaError as error:
            why = f" {_unfit(data, unfit[0])}" if unfit else ""
            raise UnknownSchemaError(f"{what}: {error}{why}") from error

    def _decode_by_identity(self, data: bytes, event_class: type[E]) -> E:
        writer = self._writer(data, event_class.__qualname__)
        identity = _identity(data, writer)
        if identity is None:
            raise DeserializationError(
                f"{event_class.__qualname__}: the schema {writer.node.name or writer.node.kind} names no event type, "
                "so the bytes' class is not known; read them with the class itself."
            )
        return self.decode(data, _found(event_class, *identity))

    def _decode_other(self, data: bytes, event_class: type[E], codec: Codec) -> E:
        writer = self._writer(data, event_class.__qualname__)
        own = event_class.event_type, codec.info.version
        event_type, version = _identity(data, writer) or own
        if (event_type, version) == own:  # the same version with other fields: say, before it was published
            return cast(E, codec.resolve(data, writer.node, writer.text))
        other = read_other(
            event_class,
            event_type,
            version,
            exact=lambda cls: self.decode(data, cls),
            resolve=lambda cls: codec_of(cls).resolve(data, writer.node, writer.text),
        )
        return cast(E, other)


class _Written(NamedTuple):
    """A writer's schema."""

    text: str
    node: SchemaNode
    stated: tuple[str, str | None] | None
    """The event type and version that the schema itself names."""
    scales: tuple[int, ...]
    """Of its decimals, in their order."""


def _chosen(identity: tuple[str, str] | None, known: Sequence[_Written]) -> str | None:
    """Which of the schemas of one fingerprint wrote an event of this type and version; None where none may have.

    They differ in what the Parsing Canonical Form leaves out, and of that a decimal's scale changes amounts: it is
    taken from the version's own schema alone.
    """
    own = [one for one in known if identity is None or one.stated in (None, identity) or one.stated[1] is None]
    if own and (identity is not None or len({one.scales for one in own}) == 1):
        return own[0].text
    return None if any(one.scales for one in known) else known[0].text


def _unfit(data: bytes, text: str) -> str:
    event_type, version = _identity(data, _parsed(text)) or ("These bytes", None)
    whose = f"{event_type!r} {version}" if version else event_type
    return (
        "Schemas of other versions have this fingerprint, which leaves the scale of decimals out: that of "
        f"{whose} is not guessed from them."
    )


def _found(event_class: type[E], event_type: str, version: str | None) -> type[E]:
    found = registry.find(event_type, version)
    if not issubclass(found, event_class):
        raise DeserializationError(
            f"{event_class.__qualname__}: the bytes are an event of type {event_type!r}, which is {found.__qualname__}."
        )
    return found


def _identity(data: bytes, writer: _Written) -> tuple[str, str | None] | None:
    """From the body, where the schema begins with type and version as ours do; else from what the schema says."""
    return _identity_in(data, writer.node) or writer.stated


def _identity_in(data: bytes, writer: SchemaNode) -> tuple[str, str] | None:
    names = [(field.name, field.type.kind) for field in writer.fields[:2]]
    if names != [("event_type", "string"), ("version", "string")]:
        return None
    try:
        event_type, pos = read_text(data, HEADER)
        version, _ = read_text(data, pos)
    except FAILURES as error:
        raise DeserializationError(f"{writer.name}: the bytes have no event type and version: {error}.") from error
    return event_type, version


def _stated_identity(writer: SchemaNode) -> tuple[str, str | None] | None:
    """By the properties that our schemas have, or the defaults of the fields."""
    defaults = {field.name: field.default for field in writer.fields}
    event_type = writer.properties.get("eventType", defaults.get("event_type"))
    version = writer.properties.get("eventVersion", defaults.get("version"))
    if not isinstance(event_type, str):
        return None
    return event_type, version if isinstance(version, str) else None


@lru_cache(maxsize=256)
def _parsed(text: str) -> _Written:
    node = parse(text)
    return _Written(text, node, _stated_identity(node), scales(node))
