"""The examples of docs/kafka.md run as printed on a real broker; only its address is another one."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from commons_events.kafka import KafkaAdmin
from commons_events.testing.services import RunningKafka

PAGE = Path(__file__).parents[4] / "docs" / "kafka.md"

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not part of this distribution"),
]


async def test_the_examples_run(kafka_service: RunningKafka, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python title=.*?\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    async with KafkaAdmin(kafka_service.bootstrap_servers) as admin:
        for topic in ("user-events", "user-welcomes"):
            await admin.create_topic(topic, partitions=1)
        try:
            for block in blocks:
                program = tmp_path / "example.py"
                program.write_text(block.replace("localhost:9092", kafka_service.bootstrap_servers), "utf-8")
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-W", "error", program, stdout=-1, stderr=-1
                )
                printed, errors = await asyncio.wait_for(process.communicate(), 90)
                assert process.returncode == 0, errors.decode()
                for text in re.findall(r"# → (.*)$", block, re.MULTILINE):
                    assert text in printed.decode()
        finally:
            for topic in ("user-events", "user-welcomes"):
                await admin.delete_topic(topic)
