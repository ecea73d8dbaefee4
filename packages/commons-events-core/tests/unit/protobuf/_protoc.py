"""protoc, as `grpcio-tools` brings it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory, timestamp_pb2


def compiled(text: str, name: str, folder: Path) -> descriptor_pb2.FileDescriptorProto:
    """What protoc makes of a .proto text; it fails the test where that is not accepted, or has a warning."""
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    out = folder / "out.bin"
    known = files("grpc_tools") / "_proto"
    code = protoc.main(
        ["protoc", f"-I{folder}", f"-I{known}", "--fatal_warnings", f"--descriptor_set_out={out}", str(path)]
    )
    assert code == 0, text
    return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[-1]


def class_of(file: descriptor_pb2.FileDescriptorProto) -> Any:
    """The class of the file's first message."""
    pool = descriptor_pool.DescriptorPool()
    for known in (duration_pb2, timestamp_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{file.message_type[0].name}"))


def without_order(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """The same, but for what protoc adds (names in JSON) and the order that the text has for its readers."""
    copy = descriptor_pb2.FileDescriptorProto.FromString(file.SerializeToString())
    waiting = list(copy.message_type)
    while waiting:
        message = waiting.pop()
        for field in message.field:
            field.ClearField("json_name")
        for part, key in ((message.field, "number"), (message.nested_type, "name")):
            ordered = sorted(part, key=lambda item: getattr(item, key))
            del part[:]
            part.extend(ordered)
        waiting += message.nested_type
    return copy
