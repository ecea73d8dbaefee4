"""What Protobuf's tests share: protoc, and events of any class."""

from __future__ import annotations

import pytest

pytest.importorskip("google.protobuf", reason="the extra [protobuf] is not installed")
