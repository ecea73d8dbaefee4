"""``commons-events schema lock``: the file it writes, and what classes then have from it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("google.protobuf", reason="the extra [protobuf] is not installed")

Cli = Callable[..., subprocess.CompletedProcess[str]]
Python = Callable[..., str]

ORDERS = """\
from commons_events import Event, EventSchema

@EventSchema(name="order.placed", schema_type="protobuf")
class OrderPlaced(Event):
    order_id: str
    note: str = ""
"""
# Of another length than ORDERS: bytecode is cached by the second and the size of its source.
CHANGED = ORDERS.replace("    order_id", "    priority: int = 0\n    order_id").replace('    note: str = ""\n', "")
NUMBERS = """
from shop.events.orders import OrderPlaced
from commons_events.protobuf import file_descriptor
print({f.name: f.number for f in file_descriptor(OrderPlaced).message_type[0].field if f.number < 2032})
"""


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """A module in a package in a package."""
    module = tmp_path / "shop" / "events" / "orders.py"
    module.parent.mkdir(parents=True)
    for folder in (module.parent, module.parent.parent):
        (folder / "__init__.py").touch()
    module.write_text(ORDERS, "utf-8")
    return module


def locked(tmp_path: Path) -> dict[str, dict[str, int]]:
    entry: dict[str, dict[str, int]] = json.loads((tmp_path / "shop" / "events.lock.json").read_text("utf-8"))[
        "protobuf"
    ]["order.placed.v1"]["messages"]["event"]
    return entry


def test_numbers_stay_when_fields_come_and_go(cli: Cli, python: Python, tmp_path: Path, orders: Path) -> None:
    done = cli("schema", "lock", "shop.events.orders")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"wrote {Path('shop/events.lock.json')}\n", "")
    assert locked(tmp_path) == {"fields": {"note": 2, "order_id": 1}}
    assert cli("schema", "lock", "shop", "--check").returncode == 0

    orders.write_text(CHANGED, "utf-8")
    assert python(NUMBERS, paths=(tmp_path,)) == "{'priority': 3, 'order_id': 1}\n"
    done = cli("schema", "lock", "shop", "--check")
    assert done.returncode == 1
    assert "out of date: run `commons-events schema lock` without --check" in done.stderr
    assert cli("schema", "lock", "shop").returncode == 0
    assert locked(tmp_path) == {"fields": {"order_id": 1, "priority": 3}, "reserved": {"note": 2}}
    assert cli("schema", "lock", "shop").stdout == f"{Path('shop/events.lock.json')} is up to date\n"


def test_importing_writes_nothing(python: Python, tmp_path: Path, orders: Path) -> None:
    assert python(NUMBERS, paths=(tmp_path,)) == "{'order_id': 1, 'note': 2}\n"
    assert not list(tmp_path.rglob("*.json"))


def test_a_module_by_itself_has_its_lock_file_beside_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text(ORDERS, "utf-8")
    assert cli("schema", "lock", "alone").returncode == 0
    assert (tmp_path / "events.lock.json").is_file()


def test_a_clash_in_a_merged_file_is_an_error_that_says_where(cli: Cli, tmp_path: Path, orders: Path) -> None:
    assert cli("schema", "lock", "shop").returncode == 0
    path = tmp_path / "shop" / "events.lock.json"
    path.write_text(path.read_text("utf-8").replace('"note": 2', '"note": 1'), "utf-8")
    done = cli("schema", "lock", "shop")
    assert done.returncode == 1
    assert "the fields 'order_id' and 'note' both have the number 1" in done.stderr
    assert "Traceback" not in done.stderr
    path.write_text("<<<<<<< ours\n", "utf-8")
    done = cli("schema", "lock", "shop")
    assert done.returncode == 1
    assert "events.lock.json of shop is not JSON" in done.stderr


def test_modules_that_cannot_be_used(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty.py").touch()
    (tmp_path / "broken.py").write_text("1 / 0\n", "utf-8")
    for module, reason in (
        ("empty", "no event class"),
        ("broken", "ZeroDivisionError"),
        ("nowhere", "No module named"),
    ):
        done = cli("schema", "lock", module)
        assert done.returncode == 2
        assert reason in done.stderr
        assert "Traceback" not in done.stderr


def test_versions_whose_numbers_clash_are_locked_so_that_they_do_not(
    cli: Cli, python: Python, tmp_path: Path, orders: Path
) -> None:
    next_version = (
        CHANGED.partition("\n\n")[2].replace('placed"', 'placed", version="1.1.0"').replace("Placed(", "Placed2(")
    )
    orders.write_text(ORDERS + "\n" + next_version, "utf-8")
    with pytest.raises(AssertionError, match=r"EventDefinitionError: OrderPlaced2 .*schema lock shop\.events\.orders"):
        python(NUMBERS, paths=(tmp_path,))
    assert cli("schema", "lock", "shop").returncode == 0
    assert locked(tmp_path) == {"fields": {"note": 2, "order_id": 1, "priority": 3}}
    assert python(NUMBERS, paths=(tmp_path,)) == "{'order_id': 1, 'note': 2}\n"
