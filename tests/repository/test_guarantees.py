"""The guarantee tables in docs say what `Capabilities` say: `python tests/repository/test_guarantees.py`."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from commons_events.kafka import KafkaTransport
from commons_events.memory import MemoryTransport
from commons_events.rabbitmq import RabbitMQTransport
from commons_events.transport import Capabilities, Transport

DOCS = Path(__file__).parents[2] / "docs"
PAGES: dict[str, dict[str, Transport]] = {
    "kafka.md": {"Kafka": KafkaTransport(), "in-process": MemoryTransport()},
    "rabbitmq.md": {
        "RabbitMQ": RabbitMQTransport(),
        "single active consumer": RabbitMQTransport(single_active_consumer=True),
        "retry queues": RabbitMQTransport(retry_queues=True),
        "classic queues": RabbitMQTransport(queue_type="classic"),
        "streams": RabbitMQTransport(queue_type="stream"),
    },
}
BLOCK = re.compile(r"(<!-- guarantees -->\n).*?(<!-- /guarantees -->)", re.DOTALL)


def meanings() -> dict[str, str]:
    """The first sentence of what stands below each field."""
    found = re.findall(
        r'^    (\w+): [^\n]*= None\n    """(.*?)"""', inspect.getsource(Capabilities), re.DOTALL | re.MULTILINE
    )
    return {name: " ".join(text.split()).replace("|", "or") for name, text in found}


def word(claim: object) -> str:
    if claim is None:
        return "none known"
    if isinstance(claim, bool):
        return "yes" if claim else "no"
    return f"{claim:,}" if isinstance(claim, int) else str(claim)


def table(columns: dict[str, Transport]) -> str:
    claims = [transport.capabilities for transport in columns.values()]
    lines = [f"| capability | {' | '.join(columns)} | what it says |", f"| --- {'| --- ' * len(columns)}| --- |"]
    text = meanings()
    for field in fields(Capabilities):
        if field.name != "contract":
            words = " | ".join(word(getattr(claim, field.name)) for claim in claims)
            lines.append(f"| `{field.name}` | {words} | {text[field.name]} |")
    return "\n".join(lines) + "\n"


def page(name: str) -> str:
    text = (DOCS / name).read_text("utf-8")
    return BLOCK.sub(lambda match: match[1] + table(PAGES[name]) + match[2], text)


@pytest.mark.parametrize("name", PAGES)
def test_the_table_says_what_the_transport_claims(name: str) -> None:
    assert "<!-- guarantees -->" in page(name)
    assert (DOCS / name).read_text("utf-8") == page(name), f"type: python {Path(__file__).name}"


if __name__ == "__main__":
    for name in PAGES:
        (DOCS / name).write_text(page(name), encoding="utf-8")
    sys.exit(0)
