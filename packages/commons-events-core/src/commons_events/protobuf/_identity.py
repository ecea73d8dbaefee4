"""Who an event is, by its bytes alone."""

from __future__ import annotations

from commons_events.protobuf._numbers import ENVELOPE_NUMBERS
from commons_events.protobuf._wire import LENGTH, WireError, long_varint, spans, tag

__all__ = ["identify"]

_TYPE, _VERSION = (tag(ENVELOPE_NUMBERS[name], LENGTH) for name in ("event_type", "version"))


def identify(data: bytes) -> tuple[str, str | None] | None:
    """The event type and version that a message states, or None where it is none or states no type."""
    if data.startswith(_TYPE):  # as it is written here
        try:
            size, start = long_varint(data, len(_TYPE))
            end = start + size
            if data.startswith(_VERSION, end):
                size, after = long_varint(data, end + len(_VERSION))
                if after + size <= len(data):
                    return data[start:end].decode(), data[after : after + size].decode()
        except (IndexError, UnicodeDecodeError, WireError):
            pass
    return _search(data)


def _search(data: bytes) -> tuple[str, str | None] | None:
    if _TYPE not in data:  # most bytes of other formats end here, and not field by field
        return None
    found: dict[int, str] = {}
    try:
        for span in spans(data):
            if span.wire == LENGTH and span.number in (ENVELOPE_NUMBERS["event_type"], ENVELOPE_NUMBERS["version"]):
                found[span.number] = data[span.value : span.end].decode()
    except (WireError, UnicodeDecodeError):
        return None
    event_type = found.get(ENVELOPE_NUMBERS["event_type"])
    return None if not event_type else (event_type, found.get(ENVELOPE_NUMBERS["version"]))
