"""The guarantee table in docs/kafka.md says what `Capabilities` say: `python tests/repository/test_guarantees.py`."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import fields
from pathlib import Path

from commons_events.kafka import KafkaTransport
from commons_events.memory import MemoryTransport
from commons_events.transport import Capabilities

PAGE = Path(__file__).parents[2] / "docs" / "kafka.md"
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


def table() -> str:
    kafka, memory = KafkaTransport().capabilities, MemoryTransport().capabilities
    lines = ["| capability | Kafka | in-process | what it says |", "| --- | --- | --- | --- |"]
    text = meanings()
    for field in fields(Capabilities):
        if field.name != "contract":
            claims = word(getattr(kafka, field.name)), word(getattr(memory, field.name))
            lines.append(f"| `{field.name}` | {claims[0]} | {claims[1]} | {text[field.name]} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    return BLOCK.sub(lambda match: match[1] + table() + match[2], PAGE.read_text("utf-8"))


def test_the_table_says_what_the_transport_claims() -> None:
    assert "<!-- guarantees -->" in page()
    assert PAGE.read_text("utf-8") == page(), f"type: python {Path(__file__).name}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
