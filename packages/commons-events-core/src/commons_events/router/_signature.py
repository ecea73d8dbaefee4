"""What a handler's annotations say: which events it takes, whether by the batch, and what else it wants."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import AsyncGenerator as AbstractAsyncGenerator
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Generator as AbstractGenerator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from commons_events.errors import HandlerDefinitionError
from commons_events.event import Event
from commons_events.transport import Delivery

__all__ = ["Signature", "function_name", "looked_up", "place", "read_signature"]

_LISTS = (list, Sequence)
_STREAMS = (AsyncIterator, AbstractAsyncGenerator, Iterator, Iterable, AbstractGenerator, *_LISTS)


@dataclass(frozen=True, slots=True)
class Signature:
    """A handler's parameters by their meaning."""

    events: tuple[type[Event], ...]
    """The classes that it takes, each once; `Event` itself stands for all that no other handler takes."""
    event_parameter: str
    message_parameter: str | None
    batch: bool
    """Whether the event parameter is a list."""
    others: tuple[str, ...]
    """Parameters that dependencies fill, or that have a default."""
    dependencies: tuple[Callable[..., Any], ...]
    """What fills the others, and what that depends on."""
    kind: typing.Literal["async", "sync", "async generator", "generator"]
    by_place: bool
    """Whether the event is the first parameter, and the delivery, if it is wanted, the second."""
    returns: Any
    """The annotation of what it returns, a stream's its members'; `inspect.Signature.empty` where there is none."""


def function_name(function: Callable[..., Any]) -> str:
    """A handler's name, with its module."""
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{module}.{name}" if module else name


def place(function: Callable[..., Any]) -> str:
    """A handler's name with the file and line that it is defined in."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    name = function_name(function)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code is not None else name


def read_signature(function: Callable[..., Any]) -> Signature:
    """The meaning of a handler's parameters.

    Raises:
        HandlerDefinitionError: it has no event parameter or two of them, an annotation that cannot be looked up, a
            parameter that nobody fills, or dependencies that depend on themselves.
    """
    where = f"The handler {place(function)}"
    target: Any = function if inspect.isroutine(function) else type(function).__call__
    try:
        hints = typing.get_type_hints(target, include_extras=True)
        parameters = inspect.signature(function).parameters
    except NameError as error:
        raise HandlerDefinitionError(
            f"{where} has an annotation that cannot be looked up: {error}. Import or define it in the handler's module."
        ) from error
    except (TypeError, ValueError) as error:
        raise HandlerDefinitionError(f"{where} has no signature that can be read: {error}.") from error
    found: dict[str, tuple[tuple[type[Event], ...], bool]] = {}
    message: str | None = None
    message_is_list = False
    others: list[str] = []
    dependencies: list[Callable[..., Any]] = []
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        annotation = hints.get(name)
        dependency = _dependency(annotation, parameter.default)
        if dependency is not None:
            dependencies.append(dependency)
            others.append(name)
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            raise HandlerDefinitionError(f"{where}: {name!r} is positional-only; handlers are called by name.")
        elif (events := _events(annotation)) is not None:
            found[name] = events
        elif (delivery := _deliveries(annotation)) is not None:
            if message is not None:
                raise HandlerDefinitionError(f"{where} has two Delivery parameters, {message!r} and {name!r}.")
            message, message_is_list = name, delivery
        elif parameter.default is not parameter.empty:
            others.append(name)
        else:
            raise HandlerDefinitionError(_unknown_parameter(where, name, annotation))
    if len(found) != 1:
        problem = "has no event parameter" if not found else f"has several event parameters: {', '.join(found)}"
        raise HandlerDefinitionError(
            f"{where} {problem}. Annotate just one with its event class, a union of classes or a list of them: "
            "`event: UserRegistered`."
        )
    ((event_name, (classes, batch)),) = found.items()
    if message is not None and message_is_list != batch:
        wanted = "list[Delivery]" if batch else "Delivery"
        raise HandlerDefinitionError(f"{where}: {message!r} has to be a {wanted}, as {event_name!r} is for the events.")
    dependencies = _all_dependencies(where, dependencies)
    kind = _kind(function)
    return Signature(
        classes, event_name, message, batch, tuple(others), tuple(dependencies), kind, _by_place(
            parameters, event_name, message
        ),
        _members(hints.get("return", inspect.Signature.empty), streams="generator" in kind),
    )  # fmt: skip


def _by_place(parameters: Mapping[str, inspect.Parameter], event: str, message: str | None) -> bool:
    wanted = [event] if message is None else [event, message]
    first = list(parameters.values())[: len(wanted)]
    return [p.name for p in first if p.kind is p.POSITIONAL_OR_KEYWORD] == wanted


def _unknown_parameter(where: str, name: str, annotation: Any) -> str:
    shown = "no annotation" if annotation is None else f"the annotation {_shown(annotation)}"
    return (
        f"{where}: the parameter {name!r} has {shown}, which is neither an event class (a subclass of "
        "commons_events.Event), nor Delivery, nor a dependency (Annotated[…, Depends(…)]), nor has it a default."
    )


def _shown(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else repr(annotation)


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is typing.Annotated else annotation


def _events(annotation: Any) -> tuple[tuple[type[Event], ...], bool] | None:
    """The event classes of an annotation and whether it is a list of them; None where it is about something else."""
    annotation = _bare(annotation)
    if get_origin(annotation) in _LISTS:
        (member,) = get_args(annotation)
        inner = _events(member)
        return None if inner is None or inner[1] else (inner[0], True)
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    classes = [_bare(member) for member in members]
    if all(isinstance(cls, type) and issubclass(cls, Event) for cls in classes):
        return tuple(dict.fromkeys(classes)), False
    return None


def _deliveries(annotation: Any) -> bool | None:
    """Whether an annotation is a list of deliveries; None where it is about something else."""
    annotation = _bare(annotation)
    if get_origin(annotation) in _LISTS:
        (member,) = get_args(annotation)
        return True if _deliveries(member) is False else None
    return False if isinstance(annotation, type) and issubclass(annotation, Delivery) else None


def _members(annotation: Any, *, streams: bool) -> Any:
    """What a handler publishes by its return annotation: a stream's members, or the annotation itself."""
    if (streams or get_origin(annotation) in _LISTS) and get_origin(annotation) in _STREAMS:
        return get_args(annotation)[0]
    return annotation


def _kind(function: Callable[..., Any]) -> typing.Literal["async", "sync", "async generator", "generator"]:
    if isinstance(function, staticmethod):  # where its decorator stands below the router's
        function = function.__func__
    call = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    while hasattr(call, "func") and not inspect.isroutine(call):  # functools.partial
        call = call.func
    if inspect.isasyncgenfunction(call):
        return "async generator"
    if inspect.iscoroutinefunction(call):
        return "async"
    return "generator" if inspect.isgeneratorfunction(call) else "sync"


# --- dependencies ----------------------------------------------------------------------------------------------


def _dependency(annotation: Any, default: Any) -> Callable[..., Any] | None:
    """What fills a parameter by fast-depends, known by its own marker, without importing the library."""
    candidates = [default, *(get_args(annotation)[1:] if get_origin(annotation) is typing.Annotated else ())]
    for candidate in candidates:
        if type(candidate).__module__.partition(".")[0] == "fast_depends" and hasattr(candidate, "dependency"):
            dependency: Callable[..., Any] = candidate.dependency
            return dependency
    return None


def _all_dependencies(
    where: str, dependencies: Iterable[Callable[..., Any]], path: tuple[Any, ...] = ()
) -> list[Callable[..., Any]]:
    """Those, and what they depend on; a cycle is an error."""
    found: list[Callable[..., Any]] = []
    for dependency in dependencies:
        if dependency in path:
            names = " → ".join(function_name(step) for step in (*path[path.index(dependency) :], dependency))
            raise HandlerDefinitionError(f"{where} has dependencies that depend on themselves: {names}.")
        try:
            signature = resolved_signature(dependency)
        except NameError as error:
            raise HandlerDefinitionError(
                f"{where}: its dependency {function_name(dependency)} has an annotation that cannot be looked up: "
                f"{error}."
            ) from error
        except (TypeError, ValueError):
            continue  # a built-in without a signature depends on nothing
        own = [_dependency(parameter.annotation, parameter.default) for parameter in signature.parameters.values()]
        found += [dependency, *_all_dependencies(where, filter(None, own), (*path, dependency))]
    return found


def resolved_signature(function: Callable[..., Any]) -> inspect.Signature:
    """A function's signature with its annotations looked up where it was defined."""
    target: Any = vars(function).get("__init__", function) if isinstance(function, type) else function
    if not isinstance(target, type) and not inspect.isroutine(target):
        target = type(target).__call__
    hints = typing.get_type_hints(target, include_extras=True)
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=hints.get(name, parameter.annotation))
        for name, parameter in signature.parameters.items()
    ]
    return signature.replace(parameters=parameters, return_annotation=hints.get("return", signature.return_annotation))


@contextmanager
def looked_up(functions: Iterable[Callable[..., Any]]) -> Iterator[None]:
    """Let ``inspect.signature`` of these functions answer with looked-up annotations for the time of the block.

    fast-depends evaluates what is text by the local names of whoever is calling, which may mean something else.
    """
    stated: list[Callable[..., Any]] = []
    try:
        for function in functions:
            if inspect.isfunction(function) and not hasattr(function, "__signature__"):
                function.__signature__ = resolved_signature(function)  # type: ignore[attr-defined]
                stated.append(function)
        yield
    finally:
        for function in stated:
            del function.__signature__  # type: ignore[attr-defined]
