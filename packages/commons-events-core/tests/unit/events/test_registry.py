"""Which class stands for which type and version: replacing, refusing, finding (reading notes 1 and 10)."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from commons_events import Event, EventSchema
from commons_events.errors import (
    DeserializationError,
    DuplicateEventTypeError,
    EventDefinitionError,
    UnknownEventTypeError,
)
from commons_events.event import EventRegistry, registry


def define(name: str, module: str = "some.module", *bases: type, **namespace: Any) -> type[Event]:
    body = {"__module__": module, "__qualname__": name, **namespace}
    made: type[Event] = type(Event)(name, bases or (Event,), body)
    return made


def test_the_same_module_and_qualified_name_replaces() -> None:
    first = define("Cell", event_type="cell")
    second = define("Cell", event_type="cell")
    assert first is not second
    assert registry.find("cell") is second


def test_another_module_with_the_same_type_is_refused_when_the_class_is_created() -> None:
    first = define("Order", "shop.orders")
    with pytest.raises(DuplicateEventTypeError, match=r"shop\.orders\.Order"):
        define("Order", "billing.orders")
    assert registry.find("Order") is first


def test_two_modules_with_one_class_name_and_different_decorator_names_do_not_clash() -> None:
    sources = {
        "shop.events": "@EventSchema(name='shop.order.created')\nclass OrderCreated(Event):\n    a: int = 1\n",
        "bill.events": "@EventSchema(name='bill.order.created')\nclass OrderCreated(Event):\n    b: int = 2\n",
    }
    made = []
    for module, source in sources.items():
        namespace: dict[str, Any] = {"__name__": module, "Event": Event, "EventSchema": EventSchema}
        exec(source, namespace)
        made.append(namespace["OrderCreated"])
    shop, bill = made
    assert registry.find("shop.order.created") is shop
    assert registry.find("bill.order.created") is bill
    assert registry.get("OrderCreated") is None


def test_an_undecorated_class_and_a_decorated_one_of_the_same_name_do_not_clash() -> None:
    plain = define("Paid", "one")
    namespace: dict[str, Any] = {"__name__": "two", "Event": Event, "EventSchema": EventSchema}
    exec("@EventSchema(name='paid.elsewhere')\nclass Paid(Event):\n    pass\n", namespace)
    assert registry.find("Paid") is plain
    assert registry.find("paid.elsewhere") is namespace["Paid"]


def test_the_decorator_refuses_a_type_and_version_that_is_taken() -> None:
    @EventSchema(name="taken", version="1.0.0")
    class First(Event):
        pass

    with pytest.raises(DuplicateEventTypeError, match="taken"):

        @EventSchema(name="taken", version="1.0.0")
        class _Second(Event):
            pass

    assert registry.find("taken") is First


def test_a_refused_class_leaves_nothing_pending_behind() -> None:
    with pytest.raises(EventDefinitionError):

        @EventSchema(name="never.applied")
        class _Bad(Event):
            timestamp: int  # type: ignore[assignment]

    define("Twin", "one")
    with pytest.raises(DuplicateEventTypeError):
        define("Twin", "two")


def test_a_decorator_that_waits_defers_no_other_thread_s_clash() -> None:
    define("Shared", "one")
    pending = EventSchema(name="later")
    caught: list[Exception] = []

    def other() -> None:
        try:
            define("Shared", "two")
        except DuplicateEventTypeError as error:
            caught.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(caught) == 1
    assert pending(define("Shared", "three")).event_type == "later"


def test_a_decorator_kept_in_a_variable_does_not_swallow_a_later_clash() -> None:
    kept = EventSchema(name="kept")
    decorated = kept(define("Kept"))
    assert registry.find("kept") is decorated
    define("Loud", "one")
    with pytest.raises(DuplicateEventTypeError):
        define("Loud", "two")


def test_a_nested_class_under_a_decorated_outer_clashes_at_the_latest_by_its_own_decorator() -> None:
    define("Inner", "one")

    @EventSchema(name="outer")
    class Outer(Event):
        class Nested(Event):
            event_type = "outer.nested"

    assert registry.find("outer") is Outer
    assert registry.find("outer.nested") is Outer.Nested


def test_a_clash_that_was_deferred_for_an_undecorated_class_is_not_silently_lost() -> None:
    """A class inside a decorated class's body has no decorator of its own to wait for."""
    first = define("taken", "one")
    with pytest.raises(DuplicateEventTypeError):

        @EventSchema(name="outer")
        class _Outer(Event):
            class Nested(Event):
                event_type = "taken"

    assert registry.find("taken") is first


def test_several_versions_of_one_type_live_side_by_side() -> None:
    classes = {}
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        classes[version] = EventSchema(name="product.created", version=version)(
            define(f"Product{version[0]}{version[2]}")
        )
    for version, cls in classes.items():
        assert registry.find("product.created", version) is cls
    assert registry.find("product.created") is classes["2.0.0"]


def test_an_unknown_minor_version_is_read_by_the_latest_of_the_same_major() -> None:
    old = EventSchema(name="p", version="1.2.0")(define("Old"))
    new = EventSchema(name="p", version="1.10.0")(define("New"))
    EventSchema(name="p", version="2.0.0")(define("Next"))
    assert registry.find("p", "1.3.0") is new
    assert registry.find("p", "1.2.0") is old


def test_an_unknown_major_version_is_an_error_that_lists_the_known_ones() -> None:
    EventSchema(name="p", version="1.2.0")(define("Old"))
    EventSchema(name="p", version="2.0.0")(define("New"))
    with pytest.raises(UnknownEventTypeError, match=r"'3\.0\.0'.*1\.2\.0, 2\.0\.0"):
        registry.find("p", "3.0.0")
    assert registry.get("p", "3.0.0") is None


def test_releases_come_after_their_prereleases() -> None:
    EventSchema(name="p", version="1.0.0-rc.1")(define("Candidate"))
    release = EventSchema(name="p", version="1.0.0")(define("Release"))
    assert registry.find("p") is release


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.9.0", "1.10.0"),
        ("1.0.0-rc.2", "1.0.0-rc.10"),
        ("1.0.0-alpha", "1.0.0-beta"),
        ("1.0.0-alpha", "1.0.0-alpha.1"),
        ("1.0.0-1", "1.0.0-alpha"),
        ("1.0.0-rc.1", "1.0.0"),
    ],
)
def test_the_latest_version_follows_semantic_versioning_s_precedence(older: str, newer: str) -> None:
    first = EventSchema(name="p", version=newer)(define("Newer"))
    EventSchema(name="p", version=older)(define("Older"))
    assert registry.find("p") is first


def test_an_unknown_type_says_what_to_do() -> None:
    with pytest.raises(UnknownEventTypeError, match=r"'no\.such'.*define") as caught:
        registry.find("no.such")
    assert isinstance(caught.value, DeserializationError)
    assert isinstance(caught.value, LookupError)
    assert isinstance(caught.value, ValueError)


def test_isolated_forgets_what_was_registered_inside_and_restores_what_was_taken_out() -> None:
    outer = define("Outer")
    with registry.isolated():
        define("Inside")
        registry.unregister(outer)
        assert registry.get("Outer") is None
    assert registry.get("Inside") is None
    assert registry.find("Outer") is outer


def test_isolated_restores_after_an_exception() -> None:
    def fail() -> None:
        with registry.isolated():
            define("Inside")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert registry.get("Inside") is None


def test_a_registry_of_ones_own_is_separate() -> None:
    cls = define("Mine")
    own = EventRegistry()
    assert own.get("Mine") is None
    own.register(cls)
    assert own.classes() == {("Mine", "1.0.0"): cls}
    own.unregister(cls)
    assert own.classes() == {}
    assert registry.find("Mine") is cls


def test_a_provisional_clash_leaves_the_first_class_in_its_place() -> None:
    first, second = define("One", "a"), define("Two", "b")
    own = EventRegistry()
    own.register(first)
    second.event_type = "One"
    own.register(second, provisional=True)
    assert own.classes() == {("One", "1.0.0"): first}
    with pytest.raises(DuplicateEventTypeError):
        own.find("One")
    with pytest.raises(DuplicateEventTypeError):
        own.register(second)


def test_classes_is_a_copy() -> None:
    define("A")
    registry.classes().clear()
    assert registry.get("A") is not None


def test_threads_may_define_and_find_at_once() -> None:
    errors: list[Exception] = []

    def work(n: int) -> None:
        try:
            for i in range(25):
                cls = define(f"T{n}x{i}", f"m{n}")
                assert registry.find(f"T{n}x{i}") is cls
                registry.classes()
        except Exception as error:  # noqa: BLE001  # told to the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
