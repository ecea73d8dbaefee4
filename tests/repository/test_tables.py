"""The tables that pages of the docs have from the code are what the code makes."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tools.tables import Table


@pytest.mark.parametrize(
    ("module", "library"), [("avro", "avro"), ("json", "fastjsonschema"), ("protobuf", "google.protobuf")]
)
def test_the_table_is_what_the_code_makes(module: str, library: str) -> None:
    pytest.importorskip(library, reason=f"the library of the format on the page {module}.md is not installed")
    maker = importlib.import_module(f"tools.{module}_table")
    assert maker.TABLE.text() == maker.TABLE.page.read_text("utf-8"), f"run: python -m tools.{module}_table"
    assert len(maker.table().splitlines()) == len(maker.ROWS) + 2


def test_a_table_is_written_between_its_marks_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin: python -m maker -->\nold\n<!-- end -->\nafter\n", "utf-8")
    table = Table(page, "maker", lambda: "new\n")
    monkeypatch.setattr("sys.argv", ["maker", "--check"])
    assert table.run() == 1
    assert "old" in page.read_text("utf-8")
    monkeypatch.setattr("sys.argv", ["maker"])
    assert table.run() == 0
    assert page.read_text("utf-8") == "before\n<!-- begin: python -m maker -->\nnew\n<!-- end -->\nafter\n"
    assert table.run() == 0
    page.write_text("no marks\n", "utf-8")
    with pytest.raises(SystemExit, match="marks"):
        table.text()
