"""The table in docs/json.md is what the code does."""

from __future__ import annotations

import pytest

pytest.importorskip("fastjsonschema", reason="the extra commons-events-core[jsonschema] is not installed")

from tools import json_table


def test_the_table_of_the_json_page_is_the_codes_own() -> None:
    assert json_table.page() == json_table.PAGE.read_text("utf-8"), "run: python -m tools.json_table"
    assert len(json_table.table().splitlines()) == len(json_table.ROWS) + 2
