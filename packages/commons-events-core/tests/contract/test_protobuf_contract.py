"""Protobuf keeps the contract of a serializer, with all kinds of fields."""

from __future__ import annotations

import pytest

pytest.importorskip("google.protobuf", reason='needs pip install "commons-events-core[protobuf]"')

from commons_events.protobuf import ProtobufSerializer
from commons_events.testing.contracts import SerializerContract


class TestProtobufSerializer(SerializerContract):
    def make_serializer(self) -> ProtobufSerializer:
        return ProtobufSerializer()
