"""What other programs in Python use of `google.protobuf`: the descriptor and the message class of an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from commons_events.event import Event
from commons_events.plugins import serializer
from commons_events.protobuf._plan import plan_of

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

__all__ = ["file_descriptor", "message_class"]


def file_descriptor(event_class: type[Event]) -> FileDescriptorProto:
    """The descriptor of the .proto file that ``event_class.schema`` is the text of.

    Raises:
        MissingDistributionError: the package ``protobuf`` is not installed; the message has the line to type.
        EventDefinitionError: Protobuf cannot hold a field of the class.
    """
    serializer("protobuf")  # says what is missing
    from commons_events.protobuf._descriptor import describe_file

    return describe_file(plan_of(event_class))


def message_class(event_class: type[Event]) -> type[Any]:
    """A class of `google.protobuf` that reads and writes the same bytes: ``message_class(cls).FromString(data)``.

    Raises:
        MissingDistributionError: the package ``protobuf`` is not installed; the message has the line to type.
        EventDefinitionError: Protobuf cannot hold a field of the class.
    """
    serializer("protobuf")  # says what is missing
    from commons_events.protobuf._descriptor import proto_class

    return proto_class(plan_of(event_class))
