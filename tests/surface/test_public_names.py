"""The names that users import: one that goes, or comes unasked, fails here until `public_names.json` says so too.

After a change that is meant: `python tests/surface/test_public_names.py` writes the list anew.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import commons_events

STORED = Path(__file__).with_name("public_names.json")
NO_LIBRARY = {"cli", "testing", "kafka", "rabbitmq", "pubsub", "aws", "streaming", "sourcing", "schemas"}
"""A command line, and the siblings, which keep lists of their own."""


def modules() -> list[str]:
    """Core's public modules."""
    found = [info.name for info in pkgutil.iter_modules(commons_events.__path__)]
    public = [name for name in found if not name.startswith("_") and name not in NO_LIBRARY]
    return ["commons_events", *(f"commons_events.{name}" for name in sorted(public))]


def surface() -> dict[str, list[str]]:
    """The public names of every module."""
    return {name: sorted(importlib.import_module(name).__all__) for name in modules()}


def public_objects() -> Iterator[tuple[str, Any]]:
    for module_name, names in surface().items():
        module = importlib.import_module(module_name)
        for name in names:
            yield f"{module_name}.{name}", getattr(module, name)


def own_members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public functions and properties that the class defines itself and that override nothing."""
    for name, member in vars(cls).items():
        if name.startswith("_") or any(name in vars(base) for base in cls.__mro__[1:]):
            continue
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if isinstance(function, types.FunctionType | property):
            yield name, function


def test_the_public_names_are_those_that_are_stored() -> None:
    assert surface() == json.loads(STORED.read_text("utf-8"))


def test_the_page_s_names_come_from_the_top() -> None:
    wanted = {
        "Event",
        "EventMetadata",
        "EventSchema",
        "EventProducer",
        "ProducerConfig",
        "EventConsumer",
        "ConsumerConfig",
    }
    assert wanted <= set(commons_events.__all__)


@pytest.mark.parametrize("name", modules())
def test_every_public_name_is_there_once_and_a_star_import_brings_just_those(name: str) -> None:
    module = importlib.import_module(name)
    names = list(module.__all__)
    assert len(names) == len(set(names))
    assert not [public for public in names if not hasattr(module, public)]
    assert not [public for public in names if public.startswith("_")]
    namespace: dict[str, object] = {}
    exec(f"from {name} import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(names)


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is_for(name: str) -> None:
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize(("name", "value"), list(public_objects()), ids=[name for name, _ in public_objects()])
def test_every_public_class_and_function_says_what_it_is_for(name: str, value: Any) -> None:
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return
    assert vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__, name
    if inspect.isclass(value):
        silent = [member for member, function in own_members(value) if not function.__doc__]
        assert not silent, f"{name}: {silent} have no docstring"


@pytest.mark.parametrize(("name", "value"), list(public_objects()), ids=[name for name, _ in public_objects()])
def test_no_public_class_is_from_a_private_place_of_another_library(name: str, value: Any) -> None:
    if inspect.isclass(value):
        assert value.__module__.startswith("commons_events"), f"{name} comes from {value.__module__}"


if __name__ == "__main__":
    STORED.write_text(json.dumps(surface(), indent=2) + "\n", "utf-8")
