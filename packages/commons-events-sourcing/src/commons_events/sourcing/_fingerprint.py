"""What makes an aggregate's state out of its events, in one hash: the code of the class, and all that it uses.

The walk begins at the class's own special methods and handlers and follows what these name: members of the class,
and functions, classes and values of the program's modules, with their defaults, closures and decorators. It goes in an
order of names, never one of addresses or hashes, so that all processes find the same; where objects hold each other,
the text of one depends on which was met first. What Python and installed libraries have is known by its name, and a
library by its version.
"""

from __future__ import annotations

import datetime
import dis
import functools
import hashlib
import importlib.metadata
import operator
import os
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from commons_events.event import Event
from commons_events.sourcing._domain_event import DomainEvent
from commons_events.sourcing._state import reduced

if TYPE_CHECKING:
    from commons_events.sourcing._aggregate import AggregateRoot

__all__ = ["fingerprint"]

_CONSTANTS = frozenset({bool, float, complex, str, bytes, type(None), type(...), type(NotImplemented)})
_FRAMEWORK = frozenset({"commons_events", "pydantic", "pydantic_core"})
_STANDARD_LIBRARY = f"{Path(os.__file__).parent}{os.sep}"
_NATIVE = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
_METHODS = (types.FunctionType, classmethod, staticmethod, property)
_DEEPEST = 100
"""How many values are looked at that lie in each other: Python's stack, of whatever caller, has room for them."""
_VALUES = (datetime.tzinfo, operator.attrgetter, operator.itemgetter, operator.methodcaller)
"""What is compared by identity and still is a value."""
_INSIDE: dict[type, tuple[str, ...]] = {
    property: ("fget", "fset", "fdel"),
    classmethod: ("__func__",),
    staticmethod: ("__func__",),
    types.MethodType: ("__func__", "__self__"),
    functools.partial: ("func", "args", "keywords"),
    functools.partialmethod: ("func", "args", "keywords"),
    functools.cached_property: ("func",),
    functools.singledispatchmethod: ("dispatcher",),
    type(functools.lru_cache(len)): ("__wrapped__",),
    typing.TypeVar: ("__name__", "__bound__", "__constraints__"),
    typing.NewType: ("__name__", "__supertype__"),
    typing.ForwardRef: ("__forward_arg__",),
    type(os.environ): (),  # is of the process
    FieldInfo: tuple(name for name in FieldInfo.__slots__ if not name.startswith("_")),
}
"""Of what holds functions or types, these; and not what it keeps besides, such as a cache."""


def fingerprint(aggregate_class: type[AggregateRoot], attributes: Mapping[str, Any]) -> str:
    """The hash of what the class makes of its events; equal in all processes of the same code.

    Args:
        aggregate_class: whose handlers.
        attributes: the types of its annotated attributes.
    """
    return hashlib.sha256("\n".join(sorted(_Walk(aggregate_class).lines(attributes))).encode()).hexdigest()[:32]


class _Walk:
    """The code of one aggregate class, all of which is looked at once."""

    def __init__(self, aggregate_class: type[AggregateRoot], deepest: int = _DEEPEST) -> None:
        from commons_events.sourcing._aggregate import AggregateRoot

        self._class = aggregate_class
        self._deepest = deepest
        self._own = [
            cls for cls in aggregate_class.__mro__ if cls is not AggregateRoot and not _is_standard(cls.__module__)
        ]
        self._modules = dict.fromkeys(cls.__module__ for cls in self._own)
        self._packages = {module.partition(".")[0] for module in self._modules} - _FRAMEWORK
        self._lines: set[str] = set()
        self._waiting: list[Iterator[str]] = []
        """What is still to be looked at, so that long chains of calls are none of Python's stack."""
        self._met: set[object] = set()
        self._texts: dict[int, tuple[object, str]] = {}
        """What was described, by id; with the object, so that no other one gets its id meanwhile."""
        self._path: set[int] = set()
        self._known: dict[str, bool] = {}

    def lines(self, attributes: Mapping[str, Any]) -> Iterable[str]:
        """All that the state depends on, in no order."""
        self._lines = {
            sys.implementation.cache_tag or "",
            f"{self._name(self._class)} {self._class.snapshot_version!r}",
            *(f"{name}: {self._text(hint)}" for name, hint in attributes.items()),
        }
        for name in sorted({name for cls in self._own for name, member in vars(cls).items() if _is_root(name, member)}):
            self._use(name)
        for event_class in self._events():
            self._text(event_class)
        while self._waiting:
            self._lines.update(self._waiting.pop())
        return self._lines

    def _events(self) -> Iterator[type]:
        """The events that the handlers are for, where the modules or the classes of the handlers have them."""
        from commons_events.sourcing._aggregate import handler_name

        handlers = {name for cls in self._own for name in vars(cls) if name.startswith("handle_")}
        for namespace in [*map(vars, self._own), *(vars(sys.modules.get(name, object)) for name in self._modules)]:
            for value in list(namespace.values()):
                if (
                    issubclass(type(value), type)
                    and issubclass(value, DomainEvent)
                    and any(handler_name(cls) in handlers for cls in value.__mro__)
                ):
                    yield value

    # --- what is looked at once, a line for each ------------------------------------------------------------

    def _once(self, key: object, lines: Iterator[str]) -> None:
        if key not in self._met:
            self._met.add(key)
            self._waiting.append(lines)

    def _use(self, name: str) -> None:
        """Look at the members of the aggregate's classes that have this name."""
        if any(name in vars(cls) for cls in self._own):
            self._once(("member", name), self._member(name))

    def _member(self, name: str) -> Iterator[str]:
        for cls in self._own:
            if name in vars(cls):
                member = vars(cls)[name]
                yield f"{self._name(cls)}.{name} = {self._text(member)}"
                if name.startswith("handle_") and type(member) is types.FunctionType:
                    with suppress(Exception):  # an annotation that cannot be looked up; its name may be found elsewhere
                        hints = typing.get_type_hints(member, include_extras=True)
                        yield from (self._text(hint) for key, hint in hints.items() if key != "return")

    def _class_lines(self, cls: Any) -> Iterator[str]:
        name = self._name(cls)
        yield f"{name} is {self._text([type(cls), *cls.__bases__])}"
        if issubclass(cls, BaseModel):
            hints: dict[str, Any] = {**cls.model_fields, **cls.__private_attributes__}
        else:
            hints = dict(vars(cls).get("__annotations__", {}))
            with suppress(Exception):  # as they stand, where they cannot be looked up
                found = typing.get_type_hints(cls, include_extras=True)
                hints = {key: found[key] for key in hints}
        yield from (f"{name}.{key}: {self._text(hint)}" for key, hint in hints.items())
        members = {key: value for key, value in vars(cls).items() if not _is_machinery(cls, key, value)}
        if issubclass(cls, Enum):
            members |= {key: member.value for key, member in cls.__members__.items()}
        yield from (f"{name}.{key} = {self._text(member)}" for key, member in members.items())

    def _function_lines(self, function: types.FunctionType) -> Iterator[str]:
        """What a function of the program uses by name."""
        global_names, names = _names_in(function.__code__)
        for name in sorted(names):
            self._use(name)
        yield from self._values(function.__globals__, global_names, names)

    def _values(self, namespace: dict[str, Any], wanted: Iterable[str], names: set[str]) -> Iterator[str]:
        module = self._placed(namespace.get("__name__", ""))
        for name in sorted(wanted):
            if name not in namespace:
                continue
            value = namespace[name]
            if isinstance(value, types.ModuleType):
                key = (id(value), frozenset(names))
                if not self._is_library(value.__name__):  # helpers.price: price is among the names
                    self._once(key, self._values(vars(value), names & vars(value).keys(), names))
                yield f"{module}{name} = {self._placed(value.__name__)}"
            elif (id(namespace), name) not in self._met:
                self._met.add((id(namespace), name))
                yield f"{module}{name} = {self._text(value)}"

    # --- the text of a value --------------------------------------------------------------------------------

    def _text(self, value: Any) -> str:
        """A value in words that are the same in each process; what is in it is looked at, too."""
        kind = type(value)
        if kind in _CONSTANTS:
            if kind is str:
                self._use(value)  # maybe getattr(self, "…"), here or wherever the text goes
            return ascii(value)
        if kind is int:
            return hex(value)  # of any length
        if issubclass(kind, types.ModuleType):
            return self._placed(value.__name__)
        if issubclass(kind, type):
            return self._of_class(value)
        if id(value) in self._texts:
            return self._texts[id(value)][1]
        if id(value) in self._path or len(self._path) > self._deepest:
            return "…"
        self._path.add(id(value))
        try:
            text = f"{self._of_class(kind)}({', '.join(self._parts(value, kind))})"
        finally:
            self._path.discard(id(value))
        text = text if len(text) < 200 else hashlib.sha256(text.encode()).hexdigest()
        self._texts[id(value)] = value, text
        return text

    def _of_class(self, cls: Any) -> str:
        if cls not in self._own and not self._is_library(cls.__module__):
            self._once(cls, self._class_lines(cls))
        return self._name(cls)

    def _parts(self, value: Any, kind: type) -> Iterator[str]:
        if kind is types.FunctionType:
            return self._of_function(value)
        if kind is types.CodeType:
            return self._of_code(value)
        if issubclass(kind, set | frozenset):
            items = sorted(value, key=self._at_first_sight) if self._deepest == _DEEPEST else value
            return iter(sorted(map(self._text, items)))
        return map(self._text, self._inside(value, kind))

    def _at_first_sight(self, item: Any) -> str:
        """Where a set's item, which may be in a circle with others, comes: sets are in an order of addresses."""
        return ascii(item) if type(item) in _CONSTANTS else _Walk(self._class, deepest=3)._text(item)

    def _inside(self, value: Any, kind: Any) -> Iterable[Any]:
        """What a value consists of."""
        if kind in (list, tuple):
            return typing.cast("Iterable[Any]", value)
        if kind in (dict, types.MappingProxyType):
            return [*value.keys(), *value.values()]
        if kind.__module__ == "unittest.mock":  # is as deep as one looks
            return []
        for base in kind.__mro__:
            if base in _INSIDE:
                return [getattr(value, name, None) for name in _INSIDE[base]]
        if kind in _NATIVE:
            owner = getattr(value, "__self__", None)
            return [getattr(value, "__qualname__", ""), *([] if isinstance(owner, types.ModuleType) else [owner])]
        if issubclass(kind, Enum):
            return [value.value]
        if kind.__module__ in ("typing", "types", "typing_extensions"):
            if (origin := typing.get_origin(value)) is not None:
                return [origin, *typing.get_args(value)]
            if kind.__module__ != "types":
                return [repr(value), getattr(value, "__value__", None)]
        # Of what is compared by its value, the value; a lock, a logger or a client of a library is but that, and so is
        # what makes a query of ==, and is hashed by identity.
        by_value = kind.__eq__ is not object.__eq__ and kind.__hash__ is not object.__hash__
        if by_value or issubclass(kind, _VALUES) or not self._is_library(kind.__module__):
            with suppress(Exception):  # it cannot be taken apart
                return reduced(value)
        with suppress(Exception):
            inside = [getattr(value, "__wrapped__", None)] if callable(value) else []
            return [*inside, *(part for part in vars(value).values() if type(part) in _METHODS)]
        return []

    def _of_function(self, function: types.FunctionType) -> Iterator[str]:
        module = function.__globals__.get("__name__", "")
        yield self._placed(module, function.__qualname__)
        if (registry := vars(function).get("registry")) is not None and hasattr(function, "dispatch"):
            yield self._text(registry)  # of functools.singledispatch, whose closure has a cache
            return
        yield self._text(vars(function).get("__wrapped__"))
        library = self._is_library(module)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with suppress(ValueError):  # not filled yet
                content = cell.cell_contents
                if not (library and type(content).__hash__ is None):  # a decorator's cache
                    yield f"{name}={self._text(content)}"
        if not library:
            self._once(function, self._function_lines(function))
            yield self._text(function.__code__)
            yield self._text(function.__defaults__)
            yield self._text(function.__kwdefaults__)

    def _of_code(self, code: types.CodeType) -> Iterator[str]:
        """What it does, without where it stands."""
        yield code.co_code.hex()
        yield code.co_exceptiontable.hex()
        yield repr((code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount))
        yield repr((code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars))
        yield from map(self._text, code.co_consts)

    # --- whose code it is -----------------------------------------------------------------------------------

    def _name(self, cls: type) -> str:
        return self._placed(cls.__module__, cls.__qualname__)

    def _placed(self, module: str, name: str = "") -> str:
        if module == "__mp_main__":  # as the processes that multiprocessing spawns call it
            module = "__main__"
        return f"{module}.{name}{_version_of(module.partition('.')[0]) if self._is_library(module) else ''}"

    def _is_library(self, module: str | None) -> bool:
        module = module or ""  # a class that was made by exec has none
        known = self._known.get(module)
        if known is None:
            package = module.partition(".")[0]
            own = module in self._modules or package in self._packages
            known = self._known[module] = not own and (package in _FRAMEWORK or _is_installed(module))
        return known


def _is_standard(module: str) -> bool:
    """Whether it is a module of Python."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:  # built in; or a notebook's, or of a program that has no files
        return module.partition(".")[0] in sys.stdlib_module_names
    return bool(file.startswith(_STANDARD_LIBRARY)) and not _is_beside(file)


def _is_installed(module: str) -> bool:
    """Whether it is a module of Python, or of a library that was installed beside the program."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return _is_standard(module) or (file is not None and _is_beside(file))


def _is_beside(file: str) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


@functools.cache
def _version_of(package: str) -> str:
    if package in _FRAMEWORK or package in sys.stdlib_module_names:
        return ""
    try:
        return " " + importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return f" {getattr(sys.modules.get(package), '__version__', '')}"


def _is_root(name: str, member: object) -> bool:
    return name.startswith("handle_") or (name.startswith("__") and isinstance(member, _METHODS))


def _is_machinery(cls: type, name: str, member: object) -> bool:
    """Whether Python, pydantic or `Event` put a member into a class, some of them only once it is needed."""
    if name.startswith("__") and name.endswith("__"):
        return not isinstance(member, _METHODS)
    if issubclass(cls, Enum):
        return name in cls.__members__ or (name.startswith("_") and name.endswith("_"))
    if issubclass(cls, Event) and type(member).__module__.partition(".")[0] in _FRAMEWORK:
        return True  # a format's codec
    return name in ("_abc_impl", "_sa_class_manager") or (issubclass(cls, Event) and name in Event.__class_vars__)


def _names_in(code: types.CodeType) -> tuple[set[str], set[str]]:
    """The names of globals that code uses, and all names."""
    names = set(code.co_names)
    global_names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            for found, more in zip((global_names, names), _names_in(constant), strict=True):
                found |= more
    return global_names, names
