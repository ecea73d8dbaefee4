"""From one version of an event to another: by the format's own rules, by migrations, and by chains of both."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from commons_events import Event, EventSchema, check_migrations, migration
from commons_events.errors import (
    AmbiguousMigrationError,
    DeserializationError,
    EventDefinitionError,
    MigrationError,
    MissingMigrationError,
    UnknownEventTypeError,
)
from commons_events.event import registry
from commons_events.event._versions import version_order

AT = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Family:
    """Several versions of one event, made anew for each test."""

    def __init__(self, *versions: str) -> None:
        for version in versions:
            self.add(version)

    def add(self, version: str) -> type[Event]:
        major = version.partition(".")[0]

        @EventSchema(name="product.created", version=version)
        class Product(Event):
            __qualname__ = f"Product{version}"
            name: str
            if major == "1":
                price: float = 0.0
            else:
                pricing: dict[str, Any]
            if version == "1.1.0":
                tags: list[str] = []

        vars(self)["v" + version.replace(".", "_")] = Product
        return Product

    def __getattr__(self, name: str) -> type[Event]:
        raise AttributeError(name)


def to_pricing(to: type[Event]) -> Any:
    def migrate(event: Any) -> Any:
        return to(name=event.name, pricing={"amount": event.price})

    return migrate


def test_a_reader_gets_its_version_from_older_bytes() -> None:
    family = Family("1.0.0", "2.0.0")
    old, new = family.v1_0_0, family.v2_0_0
    data = old(name="Mouse", price=9.5).to_json()
    with pytest.raises(DeserializationError, match="no migration leads here"):
        new.from_json(data)

    @migration(from_=old, to=new)
    def migrate(event: Any) -> Any:
        return new(name=event.name, pricing={"amount": event.price})

    read: Any = new.from_json(data)
    assert type(read) is new
    assert read.pricing == {"amount": 9.5}
    assert type(migrate(old(name="x"))) is new  # it stays a plain function
    assert type(Event.from_json(data)) is old  # whoever asks for no version gets the one in the bytes


def test_whoever_remembers_how_an_event_is_read_learns_of_a_migration() -> None:
    family = Family("1.0.0", "2.0.0")
    before = registry.changes
    migration(from_=family.v1_0_0, to=family.v2_0_0)(to_pricing(family.v2_0_0))
    assert registry.changes > before


def test_the_envelope_stays_what_it_was() -> None:
    family = Family("1.0.0", "2.0.0")
    old, new = family.v1_0_0, family.v2_0_0
    migration(from_=old, to=new)(to_pricing(new))
    event = old(
        name="Mouse", event_id="e-1", source="urn:a", timestamp=AT, correlation_id="c", causation_id="d",
        metadata={"user": 1},
    )  # fmt: skip
    read = new.from_json(event.to_json())
    assert (read.event_id, read.source, read.timestamp) == ("e-1", "urn:a", AT)
    assert (read.correlation_id, read.causation_id, dict(read.metadata)) == ("c", "d", {"user": 1})
    assert read.version == "2.0.0"


def test_what_a_migration_says_of_the_envelope_counts() -> None:
    family = Family("1.0.0", "2.0.0")
    old, new = family.v1_0_0, family.v2_0_0

    @migration(from_=old, to=new)
    def migrate(event: Any) -> Any:
        return new(name=event.name, pricing={}, source="urn:other", metadata={})

    read = new.from_json(old(name="Mouse", source="urn:a", metadata={"a": 1}).to_json())
    assert read.source == "urn:other"
    assert dict(read.metadata) == {}


def test_chains_are_found() -> None:
    family = Family("1.0.0", "2.0.0", "3.0.0")
    migration(from_=family.v1_0_0, to=family.v2_0_0)(to_pricing(family.v2_0_0))

    @migration(from_=family.v2_0_0, to=family.v3_0_0)
    def onward(event: Any) -> Any:
        return family.v3_0_0(name=event.name + "!", pricing=event.pricing)

    read: Any = family.v3_0_0.from_json(family.v1_0_0(name="Mouse", price=1).to_json())
    assert (read.name, read.pricing) == ("Mouse!", {"amount": 1.0})


def test_the_direct_migration_goes_before_the_chain() -> None:
    family = Family("1.0.0", "2.0.0", "3.0.0")
    for start, end in (("v1_0_0", "v2_0_0"), ("v2_0_0", "v3_0_0")):
        from_, to = getattr(family, start), getattr(family, end)
        migration(from_=from_, to=to)(lambda event, to=to: to(name="chain", pricing={}))
    migration(from_=family.v1_0_0, to=family.v3_0_0)(lambda event: family.v3_0_0(name="direct", pricing={}))
    read: Any = family.v3_0_0.from_json(family.v1_0_0(name="x").to_json())
    assert read.name == "direct"


def test_the_format_reads_as_far_as_the_major_version_and_migrations_go_on() -> None:
    family = Family("1.0.0", "1.1.0", "2.0.0")
    migration(from_=family.v1_1_0, to=family.v2_0_0)(to_pricing(family.v2_0_0))
    read: Any = family.v2_0_0.from_json(family.v1_0_0(name="Mouse", price=2).to_json())
    assert read.pricing == {"amount": 2.0}
    # a version that has no class at all
    unknown = family.v1_0_0(name="Mouse", price=3).to_json().replace(b"1.0.0", b"1.0.7")
    read = family.v2_0_0.from_json(unknown)
    assert read.pricing == {"amount": 3.0}
    newer = unknown.replace(b"1.0.7", b"1.9.0")
    assert family.v2_0_0.from_json(newer).version == "2.0.0"


@pytest.mark.parametrize("schema_type", ["json", "avro", "protobuf"])
def test_the_format_goes_on_behind_a_migration(schema_type: str) -> None:
    def define(version: str, **annotations: Any) -> Any:
        space = {"__annotations__": annotations, "__module__": __name__, "__qualname__": "Moved"}
        defaults = {"note": None} if "note" in annotations else {}
        cls = type(Event)("Moved", (Event,), space | defaults)
        return EventSchema(name="unit.moved", version=version, schema_type=schema_type)(cls)

    v1, v2, v2_1, v3 = (
        define("1.0.0", x=int),
        define("2.0.0", y=str),
        define("2.1.0", y=str, note=str | None),
        define("3.0.0", z=str, note=str | None),
    )
    migration(from_=v1, to=v2)(lambda event: v2(y=str(event.x)))
    old = v1(x=1, event_id="e-1")
    for reader in (v2, v2_1):
        read = reader.deserialize(old.serialize())
        assert (type(read), read.y, read.event_id) == (reader, "1", "e-1")
    with pytest.raises(MissingMigrationError, match=r"1\.0\.0 as 'unit.moved' 3\.0\.0"):
        check_migrations(v3)
    migration(from_=v2_1, to=v3)(lambda event: v3(z=event.y))
    check_migrations(v2_1, v3)
    read = v3.deserialize(old.serialize())
    assert (type(read), read.z, read.event_id) == (v3, "1", "e-1")


def test_what_the_format_cannot_read_behind_a_migration_is_said() -> None:
    family = Family("1.0.0", "2.0.0")

    @EventSchema(name="product.created", version="2.1.0")
    class Needy(Event):
        sku: str

    migration(from_=family.v1_0_0, to=family.v2_0_0)(to_pricing(family.v2_0_0))
    with pytest.raises(MigrationError, match=r"2\.0\.0 that a migration made cannot be read as .*2\.1\.0.*sku"):
        Needy.from_json(family.v1_0_0(name="Mouse").to_json())


def test_a_newer_version_of_the_same_major_is_read_by_the_format() -> None:
    family = Family("1.0.0", "1.1.0")
    data = family.v1_1_0(name="Mouse", tags=["a"]).to_json()
    read: Any = family.v1_0_0.from_json(data)
    assert (type(read), read.name) == (family.v1_0_0, "Mouse")


def test_an_event_may_get_another_type() -> None:
    class OrderMade(Event):
        event_type = "sale.made"
        order_id: str

    class OrderPlaced(Event):
        event_type = "sale.placed"
        order_id: str

    @migration(from_=OrderMade, to=OrderPlaced)
    def renamed(event: OrderMade) -> OrderPlaced:
        return OrderPlaced(order_id=event.order_id)

    assert OrderPlaced.from_json(OrderMade(order_id="7").to_json()).order_id == "7"


def test_a_type_was_renamed_where_migrations_lead_to_one_other_type_and_not_back() -> None:
    def leads(*names: str) -> None:
        classes = [EventSchema(name=name)(type(name.title(), (Event,), {"__module__": __name__})) for name in names]
        for from_, to in itertools.pairwise(classes):
            migration(from_=from_, to=to)(lambda event, to=to: to())

    leads("a", "b", "c")
    leads("here", "there", "here")
    leads("one", "first")
    leads("one", "second")
    leads("old", "new", "old")
    leads("new", "newest")
    family = Family("1.0.0", "2.0.0")
    migration(from_=family.v1_0_0, to=family.v2_0_0)(to_pricing(family.v2_0_0))
    assert registry.migrations.renamed() == {"a": "b", "b": "c", "new": "newest"}


class Before(Event):
    event_type = "annotated"
    a: int


@EventSchema(name="annotated", version="2.0.0")
class After(Event):
    b: int


def test_annotations_state_the_classes() -> None:
    registry.register(Before)
    registry.register(After)

    @migration
    def migrate(event: Before) -> After:
        return After(b=event.a)

    assert After.from_json(Before(a=5).to_json()).b == 5


def test_two_ways_are_an_error_when_the_second_is_registered() -> None:
    family = Family("1.0.0", "2.0.0", "3.0.0", "4.0.0")
    for start, end in (("v1_0_0", "v2_0_0"), ("v1_0_0", "v3_0_0"), ("v2_0_0", "v4_0_0")):
        migration(from_=getattr(family, start), to=getattr(family, end))(lambda event: event)
    with pytest.raises(AmbiguousMigrationError, match=r"1\.0\.0 → 2\.0\.0 → 4\.0\.0 and 1\.0\.0 → 3\.0\.0 → 4\.0\.0"):
        migration(from_=family.v3_0_0, to=family.v4_0_0)(lambda event: event)
    check_migrations(family.v2_0_0)  # the one that was refused is not there


def test_the_same_migration_twice_is_an_error_and_a_reload_is_not() -> None:
    family = Family("1.0.0", "2.0.0")

    def one(event: Any) -> Any:
        return family.v2_0_0(name="one", pricing={})

    def other(event: Any) -> Any:
        return family.v2_0_0(name="other", pricing={})

    migration(from_=family.v1_0_0, to=family.v2_0_0)(one)
    migration(from_=family.v1_0_0, to=family.v2_0_0)(one)
    with pytest.raises(EventDefinitionError, match=r"one does already"):
        migration(from_=family.v1_0_0, to=family.v2_0_0)(other)


def test_missing_ones_are_found_at_start_up() -> None:
    family = Family("1.0.0", "1.1.0", "2.0.0", "3.0.0")
    migration(from_=family.v2_0_0, to=family.v3_0_0)(lambda event: event)
    with pytest.raises(MissingMigrationError, match=r"1\.0\.0 as 'product.created' 3\.0\.0; nor .*1\.1\.0"):
        check_migrations(family.v3_0_0)
    with pytest.raises(MissingMigrationError):
        check_migrations()
    check_migrations(family.v1_1_0)
    migration(from_=family.v1_1_0, to=family.v2_0_0)(lambda event: event)
    check_migrations(family.v3_0_0)


def test_a_migration_that_fails_says_which_and_why() -> None:
    family = Family("1.0.0", "2.0.0")

    @migration(from_=family.v1_0_0, to=family.v2_0_0)
    def migrate(event: Any) -> Any:
        if event.name == "liar":
            return event
        raise KeyError("price list")

    with pytest.raises(MigrationError, match=r"migrate of 'product.created' 1\.0\.0 failed for 'e-1'.*price list") as e:
        family.v2_0_0.from_json(family.v1_0_0(name="x", event_id="e-1").to_json())
    assert isinstance(e.value.__cause__, KeyError)
    with pytest.raises(MigrationError, match=r"returned a Product1\.0\.0, not a Product2\.0\.0"):
        family.v2_0_0.from_json(family.v1_0_0(name="liar").to_json())


@pytest.mark.parametrize("ends", [{}, {"from_": Event}, {"to": int}])
def test_a_migration_without_its_classes_is_refused(ends: dict[str, Any]) -> None:
    with pytest.raises(EventDefinitionError, match="does not say which event class"):
        migration(**ends)(lambda event: event)


def test_annotations_that_cannot_be_looked_up_are_said_to_be() -> None:
    class Local(Event):
        pass

    def migrate(event: Local) -> Local:
        return event

    with pytest.raises(EventDefinitionError, match=r"cannot be looked up.*State the classes"):
        migration(migrate)


def test_a_coroutine_function_is_no_migration() -> None:
    family = Family("1.0.0", "2.0.0")

    async def migrate(event: Any) -> Any:
        return event

    with pytest.raises(EventDefinitionError, match="migrate is a coroutine function"):
        migration(from_=family.v1_0_0, to=family.v2_0_0)(migrate)


def test_a_list_of_classes_is_no_class() -> None:
    family = Family("1.0.0", "2.0.0")
    with pytest.raises(TypeError, match="each by itself"):
        check_migrations([family.v1_0_0, family.v2_0_0])  # type: ignore[arg-type]


def test_a_migration_to_itself_is_refused() -> None:
    family = Family("1.0.0")
    with pytest.raises(EventDefinitionError, match="to itself"):
        migration(from_=family.v1_0_0, to=family.v1_0_0)(lambda event: event)


def test_a_class_that_comes_again_is_the_one_that_counts() -> None:
    family = Family("1.0.0", "2.0.0")
    migration(from_=family.v1_0_0, to=family.v2_0_0)(lambda event: family.v2_0_0(name=event.name, pricing={}))
    data = family.v1_0_0(name="x").to_json()
    assert type(family.v2_0_0.from_json(data)) is family.v2_0_0
    again = family.add("2.0.0")
    assert type(again.from_json(data)) is again


def test_foreign_versions_fill_no_memory() -> None:
    family = Family("1.0.0", "2.0.0")
    for number in range(3_000):
        registry.migrations.route(family.v2_0_0, "product.created", f"1.0.{number}")
    assert len(registry.migrations._routes) <= 1_000


def test_the_base_class_finds_the_class_by_the_bytes() -> None:
    family = Family("1.0.0", "1.1.0")
    for cls in (family.v1_0_0, family.v1_1_0):
        assert type(Event.deserialize(cls(name="x").serialize())) is cls
    for data in (b"", b"{}", b"[1]", b'{"event_type": 3}'):
        with pytest.raises(UnknownEventTypeError, match="state no event type"):
            Event.deserialize(data)


def test_versions_sort_as_semver_says() -> None:
    versions = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-rc.1", "1.0.0", "1.9.0", "1.10.0", "2.0.0"]
    shuffled = versions[3:] + versions[:3]
    assert sorted(shuffled, key=version_order) == versions
