"""The tables of docs/guarantees.md are generated: `python -m tools.guarantees`."""

from __future__ import annotations

from dataclasses import replace

from tools import guarantees
from tools.guarantees import Promise
from tools.workspace import with_modules


def test_the_page_is_up_to_date() -> None:
    assert guarantees.page() == guarantees.PAGE.read_text("utf-8"), "run: python -m tools.guarantees"


def test_every_test_of_the_contracts_says_what_holds() -> None:
    for contract in guarantees.CONTRACTS:
        found = guarantees.tests(contract)
        assert found
        assert [test.name for test in found if "**: " not in test.says] == []


def test_a_capability_that_is_not_claimed_is_named_also_where_a_helper_asks_for_it() -> None:
    broker = guarantees.brokers()[0]
    parked = next(test for test in guarantees.tests("RouterContract") if test.name.startswith("test_parked_keys"))
    assert set(parked.requires) == {"ordering", "browse", "consumer_groups"}
    assert guarantees.holds(broker, "RouterContract", parked) == "yes"
    less = replace(broker, capabilities=replace(broker.capabilities, browse=False, consumer_groups=False))
    assert guarantees.holds(less, "RouterContract", parked) == "no `browse`, `consumer_groups`"


def test_a_contract_that_nobody_runs_is_not_said_to_hold() -> None:
    assert guarantees.holds(guarantees.brokers()[0], "NoContract", Promise("test_x", "x")) == "not tested"


def test_every_transport_of_the_tree_is_on_the_page() -> None:
    schemes = {
        scheme
        for package in with_modules()
        for scheme in package.project.get("entry-points", {}).get("commons_events.transports", {})
    }
    assert {broker.name for broker in guarantees.brokers()} <= schemes | {"memory"}
    assert len(guarantees.brokers()) >= 2
