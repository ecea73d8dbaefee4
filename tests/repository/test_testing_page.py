"""The tests that the page on testing shows run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from commons_events.testing.services._kafka import CAPABILITIES
from commons_events.testing.services._kafka_embedded import MOCK_LACKS, TANSU_LACKS
from tools.workspace import ROOT

PAGE = (ROOT / "docs" / "testing.md").read_text("utf-8")


def test_the_fixtures_example(tmp_path: Path) -> None:
    block = next(block for block in re.findall(r"^```py\n(.*?)^```", PAGE, re.DOTALL | re.M) if "def test_" in block)
    (tmp_path / "test_page.py").write_text("import confluent_kafka\n\n" + block)
    # The mock starts at once, and lacks what the second test asks for.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path],
        cwd=tmp_path,
        env=os.environ | {"COMMONS_EVENTS_TEST_KAFKA": "mock"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    assert "kafka by mock can't serve read-committed: aborted records are visible (1 test skipped)" in done.stdout


def test_the_table_of_capabilities_says_what_the_code_says() -> None:
    rows = re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \| (.*?) \|$", PAGE, re.M)
    told = {name: (tansu, mock) for names, _, tansu, mock in rows for name in re.findall(r"`([\w-]+)`", names)}
    assert {name: cells for name, cells in told.items() if name in CAPABILITIES}.keys() == CAPABILITIES.keys()
    for name in CAPABILITIES:
        tansu, mock = told[name]
        assert (tansu == "no") == (name in TANSU_LACKS), name
        assert (mock == "no") == (name in MOCK_LACKS), name
