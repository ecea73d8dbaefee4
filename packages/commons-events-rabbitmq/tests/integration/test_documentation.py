"""The example of docs/rabbitmq.md runs as printed on a real server; only its address is another one."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[4] / "docs" / "rabbitmq.md"

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not part of this distribution"),
]


async def test_the_example_runs(rabbitmq_vhost: str, tmp_path: Path) -> None:
    (block,) = re.findall(r"^```python title=.*?\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    program = tmp_path / "example.py"
    program.write_text(block.replace("amqp://localhost", rabbitmq_vhost), "utf-8")
    process = await asyncio.create_subprocess_exec(sys.executable, "-W", "error", program, stdout=-1, stderr=-1)
    printed, errors = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0, errors.decode()
    for text in re.findall(r"# → (.*)$", block, re.MULTILINE):
        assert text in printed.decode()
