"""Events as Protobuf (proto3): messages, numbers and bytes from the class, without protoc. Needs ``[protobuf]``."""

from commons_events.protobuf._classes import file_descriptor, message_class
from commons_events.protobuf._serializer import ProtobufSerializer
from commons_events.shapes import FieldNumber

__all__ = ["FieldNumber", "ProtobufSerializer", "file_descriptor", "message_class"]
