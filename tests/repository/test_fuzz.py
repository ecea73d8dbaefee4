"""A short run of what `make fuzz` runs longer."""

from __future__ import annotations

import pytest

pytest.importorskip("avro", reason="the extra commons-events-core[avro] is not installed")

from tools.fuzz.__main__ import mutate
from tools.fuzz.targets import targets


@pytest.mark.parametrize("name", sorted(targets()))
def test_damaged_bytes_are_read_or_refused(name: str) -> None:
    assert mutate(name, 1, seed=1) > 0
