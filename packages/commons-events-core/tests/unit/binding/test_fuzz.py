"""Whatever a message holds, reading it gives an event or a DeserializationError."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from commons_events import Event, Message
from commons_events.binding import BinaryBinding, StructuredBinding, to_event
from commons_events.errors import DeserializationError


class Target(Event):
    event_type = "unit.binding.target"
    n: int = 0


GOOD = Target(source="s", event_id="i")
NAMES = [
    "content-type",
    *(f"ce_{name}" for name in ["type", "id", "source", "time", "specversion", "eventversion", "correlationid"]),
]
_texts = st.sampled_from(
    [
        "application/json",
        "application/cloudevents+json",
        "unit.binding.target",
        "1.0.0",
        "2.0.0",
        "x",
        "",
        "é",
        ";",
        "a/b",
    ]
)
header_values = st.binary(max_size=6) | _texts.map(str.encode)
documents = st.dictionaries(
    st.sampled_from(
        ["specversion", "id", "source", "type", "time", "data", "data_base64", "datacontenttype", "eventversion"]
    ),
    st.none()
    | st.integers()
    | _texts
    | st.sampled_from(["1.0", "e30="])
    | st.dictionaries(st.text(max_size=2), st.none()),
)
values = (
    st.none()
    | st.binary(max_size=20)
    | st.sampled_from([GOOD.to_json(), b"{}", b"null", StructuredBinding().to_message(GOOD, "t").value])
    | documents.map(lambda document: json.dumps(document).encode())
)


@given(st.lists(st.tuples(st.sampled_from(NAMES), header_values), max_size=6), values)
def test_any_headers_and_bytes_give_an_event_or_a_deserialization_error(
    headers: list[tuple[str, bytes]], value: bytes | None
) -> None:
    message = Message("t", value, headers=tuple(headers))
    for cls in (Event, Target):
        try:
            event = to_event(message, cls)
        except DeserializationError:
            continue
        sent = event.with_source("s")
        assert to_event(BinaryBinding().to_message(sent, "t"), Event) == sent
