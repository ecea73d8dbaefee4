"""Avro keeps what every format promises, with every kind of field."""

from __future__ import annotations

from commons_events.avro import AvroSerializer
from commons_events.serialization import Serializer
from commons_events.testing.contracts import SerializerContract


class TestAvroContract(SerializerContract):
    def make_serializer(self) -> Serializer:
        return AvroSerializer()
