"""Finding what is installed: transports, serializers, producers, consumers and commands, by their entry points.

Nothing is scanned or imported before it is asked for. A distribution takes part by an entry point in its metadata,
whose name is what users type and whose value is one class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, wraps
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, TypeVar, cast

from commons_events.errors import (
    DuplicatePluginError,
    MissingDistributionError,
    PluginLoadError,
    UnknownEventTypeError,
    UnknownSchemaError,
)
from commons_events.media_types import is_json, media_type

if TYPE_CHECKING:
    from commons_events.serialization import Serializer

__all__ = [
    "COMMANDS",
    "CONSUMERS",
    "DEMOS",
    "PRODUCERS",
    "SERIALIZERS",
    "TRANSPORTS",
    "PluginInfo",
    "import_class",
    "install_hint",
    "installed",
    "load",
    "names",
    "register",
    "serializer",
    "serializer_for",
    "serializer_of",
    "unregister",
    "when_changed",
]

TRANSPORTS = "commons_events.transports"
"""Name: the ``broker=`` value and URL scheme. Loads a `Transport`."""
SERIALIZERS = "commons_events.serializers"
"""Name: the ``schema_type``. Loads a `Serializer`."""
PRODUCERS = "commons_events.producers"
"""Name: the class's own, as imported from ``commons_events.producers``."""
CONSUMERS = "commons_events.consumers"
"""Name: the class's own, as imported from ``commons_events.consumers``."""
COMMANDS = "commons_events.commands"
"""Name: the sub-command of ``commons-events``. Loads a typer app or a function."""
DEMOS = "commons_events.demos"
"""Name: any. Loads a function that ``commons-events demo`` calls with the events that its handlers had, in order, and
that returns lines of text: what the distribution made of them."""

GROUPS = (TRANSPORTS, SERIALIZERS, PRODUCERS, CONSUMERS, COMMANDS, DEMOS)

_KNOWN: dict[tuple[str, str], str] = {
    (TRANSPORTS, "memory"): "commons-events-core",
    (TRANSPORTS, "kafka"): "commons-events-kafka",
    (TRANSPORTS, "amqp"): "commons-events-rabbitmq",
    (TRANSPORTS, "amqps"): "commons-events-rabbitmq",
    (TRANSPORTS, "rabbitmq"): "commons-events-rabbitmq",
    (TRANSPORTS, "pubsub"): "commons-events-pubsub",
    (TRANSPORTS, "sns"): "commons-events-aws",
    (TRANSPORTS, "sqs"): "commons-events-aws",
    (TRANSPORTS, "aws"): "commons-events-aws",
    (SERIALIZERS, "json"): "commons-events-core",
    (SERIALIZERS, "jsonschema"): "commons-events-core[jsonschema]",
    (SERIALIZERS, "avro"): "commons-events-core[avro]",
    (SERIALIZERS, "protobuf"): "commons-events-core[protobuf]",
    (PRODUCERS, "KafkaProducer"): "commons-events-kafka",
    (CONSUMERS, "KafkaConsumer"): "commons-events-kafka",
    (PRODUCERS, "RabbitMQProducer"): "commons-events-rabbitmq",
    (CONSUMERS, "RabbitMQConsumer"): "commons-events-rabbitmq",
    (PRODUCERS, "PubSubProducer"): "commons-events-pubsub",
    (CONSUMERS, "PubSubConsumer"): "commons-events-pubsub",
    (PRODUCERS, "SNSProducer"): "commons-events-aws",
    (PRODUCERS, "SQSProducer"): "commons-events-aws",
    (CONSUMERS, "SQSConsumer"): "commons-events-aws",
}
"""Where our own plugins live, for the hint when one is missing."""

_registered: dict[tuple[str, str], Any] = {}
_changes = 0
"""How often something was registered or taken back."""
_remembered: list[Callable[[], object]] = []
"""What clears each memory of answers."""
_told: list[Callable[[], object]] = []
"""Who is told of changes."""

Ask = TypeVar("Ask", bound=Callable[..., Any])


def _until_changed(maxsize: int | None = None) -> Callable[[Ask], Ask]:
    """As `functools.lru_cache`, but that no answer outlives a change of the plugins.

    One that is being worked out in another thread during the change is kept under the number from before it.
    """

    def decorate(work_out: Ask) -> Ask:
        answer = lru_cache(maxsize)(lambda changes, *question: work_out(*question))
        _remembered.append(answer.cache_clear)

        @wraps(work_out)
        def ask(*question: Any) -> Any:
            return answer(_changes, *question)

        return cast(Ask, ask)

    return decorate


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One installed plugin, for a listing."""

    group: str
    name: str
    target: str
    distribution: str
    version: str
    problem: str | None
    """Why it does not load, or None."""


def register(group: str, name: str, plugin: Any) -> None:
    """Offer ``plugin`` under a name without an installed entry point: for tests and scripts.

    Raises:
        DuplicatePluginError: there is one of this group and name.
    """
    if (group, name) in _registered or name in _by_name(group):
        raise DuplicatePluginError(
            f"There is a plugin {name!r} in {group} already; unregister it, or choose another name."
        )
    _registered[group, name] = plugin
    _forget()


def unregister(group: str, name: str) -> None:
    """Take back what `register` offered."""
    _registered.pop((group, name), None)
    _forget()


def when_changed(callback: Callable[[], object]) -> None:
    """Call ``callback()`` after every `register` and `unregister`, so that who remembers an answer can forget it."""
    _told.append(callback)


def _forget() -> None:
    global _changes
    _changes += 1
    for callback in (*_remembered, *_told):
        callback()


def names(group: str) -> list[str]:
    """The names of a group's plugins, sorted."""
    return sorted({*_by_name(group), *(name for g, name in _registered if g == group)})


@_until_changed()
def load(group: str, name: str) -> Any:
    """The plugin of this group and name, imported now.

    Raises:
        MissingDistributionError: there is none, or what it needs is not installed; the message names the line that
            brings it, or those there are.
        DuplicatePluginError: two distributions offer it.
        PluginLoadError: importing it failed; the cause is chained.
    """
    if (group, name) in _registered:
        return _registered[group, name]
    points = _by_name(group).get(name)
    if points is None:
        known = ", ".join(names(group)) or "none"
        raise MissingDistributionError(
            f"No plugin {name!r} in {group}; installed: {known}. {install_hint(group, name)}".rstrip()
        )
    found = points[0]
    if len(points) > 1:
        raise DuplicatePluginError(
            f"Two plugins are called {name!r} in {group}: {found.value} of {_distribution(found)} and "
            f"{points[1].value} of {_distribution(points[1])}. Uninstall one of them."
        )
    try:
        return found.load()
    except MissingDistributionError:
        raise  # the plugin says itself what it lacks
    except Exception as error:  # importing runs the plugin's own code, whatever it raises
        if isinstance(error, ModuleNotFoundError) and (hint := install_hint(group, name)):
            raise MissingDistributionError(f"{name!r} needs {error.name}, which is not installed. {hint}") from error
        raise PluginLoadError(
            f"The plugin {name!r} in {group} is installed, by {_distribution(found)}, but {found.value} does not "
            f"load: {error}."
        ) from error


def import_class(group: str, name: str, module: str) -> Any:
    """A plugin class for ``from module import name``, as a module's ``__getattr__`` answers.

    Raises:
        AttributeError: ``name`` is no plugin, nor one that we know of.
        MissingDistributionError: (an ImportError) it is one of ours that is not installed; with the line to type.
    """
    if name not in names(group):
        hint = install_hint(group, name)
        if not hint:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        raise MissingDistributionError(f"{name} is not installed. {hint}", name=name)
    return load(group, name)


@_until_changed()
def serializer(name: str) -> Serializer:
    """The serializer of a ``schema_type``.

    Raises:
        MissingDistributionError: none of this name is installed; the message has the line that brings it.
    """
    made: Serializer = load(SERIALIZERS, name)()
    return made


@_until_changed(maxsize=256)  # bounded: a content type is whatever a foreign header says
def serializer_for(content_type: str, preferred: str | None = None) -> Serializer | None:
    """The installed serializer of a content type, parameters aside; any kind of JSON is JSON's.

    Args:
        content_type: as a header has it.
        preferred: the format of the class that is read, which is the one to take where several share a content type.

    Raises:
        MissingDistributionError: the preferred one has this content type, and its extra is not installed.
    """
    wanted = _format(content_type)
    if preferred is not None and _has_format(preferred, wanted):
        return serializer(preferred)  # or says what is missing
    fitting = {codec.name: codec for codec in _installed_serializers() if _format(codec.content_type) == wanted}
    return next(iter(fitting.values()), None)


def _has_format(name: str, wanted: str) -> bool:
    """Whether a serializer is of this content type; unknown where it does not even load."""
    try:
        return name in names(SERIALIZERS) and _format(load(SERIALIZERS, name).content_type) == wanted
    except MissingDistributionError:
        return False


def _format(content_type: str) -> str:
    return "json" if is_json(content_type) else media_type(content_type)


@_until_changed(maxsize=16)
def _installed_serializers(among: frozenset[str] | None = None) -> list[Serializer]:
    found = []
    for name in names(SERIALIZERS):
        if among is not None and name not in among:
            continue
        try:
            found.append(serializer(name))
        except MissingDistributionError:
            continue  # its extra is not installed
    return found


def serializer_of(data: bytes, among: frozenset[str] | None = None) -> Serializer:
    """The installed serializer whose bytes these are, by what they themselves state.

    Args:
        data: the bytes.
        among: names of the formats that come into question, so that others need not be loaded; by default all.

    Raises:
        UnknownSchemaError: they name a writer's schema that is not known.
        UnknownEventTypeError: no installed format finds an event type in them.
    """
    formats = _installed_serializers(among)
    unknown: UnknownSchemaError | None = None
    for codec in formats:
        try:
            if codec.identify(data) is not None:
                return codec
        except UnknownSchemaError as error:
            unknown = error
    if unknown is not None:
        raise unknown
    present = {codec.name for codec in formats}
    missing = [
        line
        for group, name in _KNOWN
        if group == SERIALIZERS and name not in present
        for line in [f"{name}: {install_hint(group, name)}"]
    ]
    raise UnknownEventTypeError(
        f"The bytes {data[:20]!r}{'…' if len(data) > 20 else ''} state no event type in any installed format "
        f"({', '.join(sorted(present))}). Read them with the event's own class"
        + (f", or install their format. {'; '.join(missing)}" if missing else ".")
    )


def install_hint(group: str, name: str) -> str:
    """The line that brings a plugin of ours, or an empty string."""
    distribution = _KNOWN.get((group, name))
    return f'Type: pip install "{distribution}"' if distribution else ""


def installed() -> list[PluginInfo]:
    """Every installed plugin; each is imported to see whether it loads."""
    infos = []
    for group in GROUPS:
        for point in sorted(entry_points(group=group), key=lambda point: point.name):
            problem: str | None = None
            try:
                loaded = point.load()
                if group == SERIALIZERS:
                    loaded()  # says whether its extra is installed
            except Exception as error:  # noqa: BLE001  # a listing shows what is broken, whatever it raises
                problem = f"{type(error).__name__}: {error}"
            dist = point.dist
            infos.append(
                PluginInfo(
                    group, point.name, point.value, dist.name if dist else "?", dist.version if dist else "?", problem
                )
            )
    return infos


@cache
def _by_name(group: str) -> dict[str, list[EntryPoint]]:
    """A group's entry points; more than one of a name only where distributions are at odds."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        present = found.setdefault(point.name, [])
        if all(other.value != point.value for other in present):
            present.append(point)
    return found


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
