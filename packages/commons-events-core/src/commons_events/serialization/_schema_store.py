"""Where the schemas of writers come from: what bytes name by a fingerprint alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from threading import RLock
from typing import Protocol
from weakref import WeakSet

from commons_events.errors import ConfigurationError, EventDefinitionError, UnknownSchemaError
from commons_events.event import Event, registry
from commons_events.plugins import serializer

__all__ = ["SchemaSource", "SchemaStore", "schemas"]

_SUFFIXES = {"avro": ".avsc"}


class SchemaSource(Protocol):
    """Another place that schemas come from, such as a registry. Its ``str`` says where it looks."""

    def schema(self, format: str, fingerprint: bytes) -> str | None:
        """The schema's text, or None where it is not known.

        Args:
            format: the ``schema_type``, such as ``avro``.
            fingerprint: as the format's bytes carry it: for Avro 8 bytes, little-endian.
        """
        ...


class SchemaStore:
    """Schemas by format and fingerprint.

    It knows the registered event classes, each from the first time that it is asked after their registration; what a
    class looked like before it was replaced stays known. Past versions that a package ships are added with
    `add_files`, a registry with `add`. Used from any thread.

    Args:
        classes: what returns the event classes; by default those of the process's registry.
    """

    def __init__(self, classes: Callable[[], list[type[Event]]] | None = None) -> None:
        self._classes = classes or (lambda: list(registry.classes().values()))
        self._texts: dict[tuple[str, bytes], tuple[str, ...]] = {}
        """A fingerprint may leave out what texts differ in: the one that was learned last comes last."""
        self._seen: dict[str, WeakSet[type[Event]]] = {}
        self._sources: list[SchemaSource] = []
        self._places: list[str] = []
        self._lock = RLock()

    def add(self, source: SchemaSource) -> None:
        """Ask another source too, after those that are known already."""
        with self._lock:
            self._sources.append(source)

    def add_text(self, format: str, text: str) -> bytes:
        """Know one more schema; returns its fingerprint.

        Raises:
            ValueError: it is no schema of this format.
            MissingDistributionError: the format's package is not installed.
        """
        fingerprint = serializer(format).fingerprint(text)
        self._keep(format, fingerprint, text)
        return fingerprint

    def add_files(self, place: str | Path | Traversable, format: str = "avro") -> int:
        """Know the schemas in a directory, such as those of past versions that a package ships.

        Args:
            place: a directory's path, or the name of a package that holds the files (``shop.events.schemas``).
            format: whose files to read: ``.avsc`` for Avro.

        Returns:
            How many there are.

        Raises:
            ConfigurationError: there is no such place, no such file in it, or a file holds no schema.
        """
        suffix = _SUFFIXES.get(format)
        if suffix is None:
            raise ConfigurationError(f"Schema files are read for {', '.join(_SUFFIXES)}, not for {format!r}.")
        directory = _directory(place)
        found = sorted((item for item in directory.iterdir() if item.name.endswith(suffix)), key=lambda item: item.name)
        if not found:
            raise ConfigurationError(f"{place}: no {suffix} file is there.")
        for item in found:
            try:
                self.add_text(format, item.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ConfigurationError(f"{place}: {item.name}: {error}.") from error
        with self._lock:
            self._places.append(str(place))
        return len(found)

    def find(
        self,
        format: str,
        fingerprint: bytes,
        choose: Callable[[Sequence[str]], str | None] = lambda texts: texts[-1],
    ) -> str:
        """The text of the schema that has this fingerprint.

        Args:
            format: the ``schema_type``, such as ``avro``.
            fingerprint: as the format's bytes carry it.
            choose: which of the texts that have it; None for none of them, so that other sources are asked. By
                default the one that became known last.

        Raises:
            UnknownSchemaError: it is nowhere; the message says where it was looked for.
        """
        key = (format, fingerprint)
        texts = self._texts.get(key)
        if texts is None or (text := choose(texts)) is None:
            with self._lock:
                self._learn(format)
                texts, sources = self._texts.get(key), tuple(self._sources)
            text = choose(texts) if texts else None
            for source in sources:
                if text is not None:
                    break
                found = source.schema(format, fingerprint)
                if found is not None:
                    text = choose(self._keep(format, fingerprint, found))
        if text is None:
            places = ["the registered event classes", *self._places, *map(str, sources)]
            raise UnknownSchemaError(
                f"the writer's {format} schema, fingerprint {fingerprint.hex()}, is not known. It was looked for in "
                f"{', '.join(places)}. Import the module that defines the event, or ship the writer's schema as a "
                "file and name its directory to SchemaStore.add_files."
            )
        return text

    def _keep(self, format: str, fingerprint: bytes, text: str) -> Sequence[str]:
        """Know one more text, as the newest of its fingerprint; returns all of them."""
        with self._lock:
            others = [known for known in self._texts.get((format, fingerprint), ()) if known != text]
            texts = self._texts[format, fingerprint] = (*others, text)
            return texts

    def _learn(self, format: str) -> None:
        """Take in the classes that have come since."""
        seen = self._seen.setdefault(format, WeakSet())
        codec = serializer(format)
        for event_class in self._classes():
            if event_class in seen:
                continue
            seen.add(event_class)
            try:
                text = codec.schema(event_class)
            except EventDefinitionError:
                continue  # a class that this format cannot hold has written nothing in it
            self._keep(format, codec.fingerprint(text), text)


def _directory(place: str | Path | Traversable) -> Traversable:
    if not isinstance(place, str):
        directory: Traversable = place
    elif "/" in place or Path(place).is_dir():
        directory = Path(place)
    else:
        try:
            directory = files(place)
        except ModuleNotFoundError as error:
            raise ConfigurationError(f"{place}: neither a directory nor an importable package.") from error
    if not directory.is_dir():
        raise ConfigurationError(f"{place}: not a directory.")
    return directory


schemas = SchemaStore()
"""The process's schemas: what every codec looks in."""
