"""The table in docs/avro.md says what the code does."""

from __future__ import annotations

import pytest

pytest.importorskip("avro", reason="the extra commons-events-core[avro] is not installed")

from tools import avro_table


def test_the_table_is_what_the_code_makes() -> None:
    assert avro_table.page() == avro_table.PAGE.read_text("utf-8"), "run: python -m tools.avro_table"
    assert len(avro_table.table().splitlines()) == len(avro_table.ROWS) + 2
