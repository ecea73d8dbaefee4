"""An Avro schema, parsed by the `avro` library and checked as far as the specification (1.12) goes.

The library resolves names and refuses what has no meaning. It leaves to its callers the names of fields and aliases
("Names"), and the defaults ("Records", "Enums"), which are checked here.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from commons_events.compatibility._text import check_text
from commons_events.errors import InvalidSchemaError, MissingDistributionError

if TYPE_CHECKING:
    from avro.schema import Schema

__all__ = ["fullname_aliases", "kind", "parse"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNKNOWN = re.compile(r"Could not make an Avro Schema object from ([\w.]+)")
_NAMED = frozenset({"record", "error", "enum", "fixed"})
_INT, _LONG = 1 << 31, 1 << 63
_MAX_FIELDS = 10_000
"""Of a record; the library compares each field's name with all names before it."""
_MAX_SAID = 200


def parse(text: str, imports: Mapping[str, str] | None = None) -> Schema:
    """The schema in a text.

    Args:
        text: JSON, as in an .avsc file.
        imports: further texts by any name, each a named schema that ``text`` and later ones may refer to.

    Raises:
        InvalidSchemaError: it is no Avro schema; the message has the place, as a JSON pointer, and the reason.
        MissingDistributionError: the `avro` library is not installed.
    """
    try:
        from avro.errors import AvroException, IgnoredLogicalType
        from avro.name import Names
        from avro.schema import make_avsc_object
    except ImportError as error:
        raise MissingDistributionError(
            'Avro schemas need the avro library. Type: pip install "commons-events-core[avro]"', name="avro"
        ) from error
    names = Names()
    schema: Schema | None = None
    for place, source in [*((name, one) for name, one in (imports or {}).items()), ("", text)]:
        where = f"Avro schema {place}" if place else "Avro schema"
        document = _load(source, where)
        _check_shape(document, where)
        try:
            with warnings.catch_warnings():
                # "logical types that do not fit are ignored", says the specification
                warnings.simplefilter("ignore", IgnoredLogicalType)
                schema = make_avsc_object(document, names)
        except AvroException as error:
            raise InvalidSchemaError(f"{where}: {_reason(error)}") from error
        except (RecursionError, OverflowError, TypeError, KeyError, AttributeError, ValueError) as error:
            # what the library stumbles over where it expects other JSON than it is given
            raise InvalidSchemaError(f"{where}: {type(error).__name__}: {str(error)[:_MAX_SAID]}") from error
        _check_defaults(schema, where)
    assert schema is not None
    return schema


def kind(schema: Schema) -> str:
    """The type, where an error is the record that it is."""
    name: str = schema.type
    return "record" if name == "error" else "union" if name == "error_union" else name


def fullname_aliases(schema: Any) -> set[str]:
    """The aliases of a named type as full names: those without a dot are in the type's own namespace."""
    space = schema.fullname.rpartition(".")[0]
    return {
        alias if "." in alias or not space else f"{space}.{alias}" for alias in schema.other_props.get("aliases") or ()
    }


# --- reading ---------------------------------------------------------------------------------------------------


def _load(text: str, where: str) -> object:
    check_text(text, where)
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InvalidSchemaError(
            f"{where}: line {error.lineno}, column {error.colno}: this is not JSON: {error.msg}."
        ) from error
    except ValueError as error:  # NaN, or an int of more digits than Python reads
        raise InvalidSchemaError(f"{where}: this is not JSON: {error}.") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


def _reason(error: BaseException) -> str:
    """What the library found, without the types around it that it repeats."""
    while error.__context__ is not None:
        error = error.__context__
    text = str(error).encode("utf-8", "backslashreplace").decode("utf-8")
    if (unknown := _UNKNOWN.match(text)) is not None:
        text = f"no type is called {unknown[1]!r} here; define it before it is used"
    return text if len(text) <= _MAX_SAID else f"{text[:_MAX_SAID]} …"


def _check_shape(document: object, where: str) -> None:
    """Each node has JSON of the kind that its keyword takes, and names are names."""
    nodes: list[tuple[str, object]] = [("#", document)]
    while nodes:
        path, node = nodes.pop()
        if isinstance(node, list):
            nodes += ((f"{path}/{i}", branch) for i, branch in enumerate(node))
        elif isinstance(node, dict):
            nodes += _members(node, path, where)
        elif not isinstance(node, str):
            _refuse(where, path, f"a schema is a name, an object or a list, not {_shown(node)}")


def _members(node: dict[str, Any], path: str, where: str) -> Iterator[tuple[str, object]]:
    name = node.get("type")
    if not isinstance(name, str):
        reason = "an object needs a type" if name is None else f"the type is a name, not {_shown(name)}"
        _refuse(where, path, f"{reason}; write an inner schema in place of its object")
    if name in _NAMED:
        full = node.get("name")
        if not isinstance(full, str) or not all(_NAME.fullmatch(part) for part in full.split(".")):
            _refuse(where, f"{path}/name", f"a name has letters, digits and _, between dots, not {_shown(full)}")
        _check_aliases(node, path, where, separator=".")
    if name == "enum":
        symbols = node.get("symbols")
        if not isinstance(symbols, list):
            _refuse(where, f"{path}/symbols", f"an enum has a list of symbols, not {_shown(symbols)}")
        for i, symbol in enumerate(symbols):
            if not isinstance(symbol, str) or not _NAME.fullmatch(symbol):
                _refuse(where, f"{path}/symbols/{i}", f"a symbol has letters, digits and _, not {_shown(symbol)}")
    if name == "array":
        yield f"{path}/items", node.get("items")
    elif name == "map":
        yield f"{path}/values", node.get("values")
    elif name in ("record", "error"):
        fields = node.get("fields")
        if not isinstance(fields, list):
            _refuse(where, path, f"a record has a list of fields, not {_shown(fields)}")
        if len(fields) > _MAX_FIELDS:
            _refuse(where, path, f"a record may have {_MAX_FIELDS:,} fields here, and this one has {len(fields):,}")
        for i, field in enumerate(fields):
            place = f"{path}/fields/{i}"
            if not isinstance(field, dict):
                _refuse(where, place, f"a field is an object, not {_shown(field)}")
            if not isinstance(field.get("name"), str) or not _NAME.fullmatch(field["name"]):
                _refuse(where, place, f"a field's name has letters, digits and _, not {_shown(field.get('name'))}")
            _check_aliases(field, place, where)
            yield f"{place}/type", field.get("type")


def _check_aliases(node: dict[str, Any], path: str, where: str, separator: str = "\0") -> None:
    aliases = node.get("aliases", [])
    if not isinstance(aliases, list):
        _refuse(where, f"{path}/aliases", f"aliases are a list of names, not {_shown(aliases)}")
    for i, alias in enumerate(aliases):
        if not isinstance(alias, str) or not all(_NAME.fullmatch(part) for part in alias.split(separator)):
            _refuse(where, f"{path}/aliases/{i}", f"an alias is a name, not {_shown(alias)}")


# --- defaults --------------------------------------------------------------------------------------------------


def _check_defaults(schema: Schema, where: str) -> None:
    seen: set[int] = set()
    nodes: list[tuple[str, Any]] = [("#", schema)]
    while nodes:
        path, node = nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if kind(node) == "array":
            nodes.append((f"{path}/items", node.items))
        elif kind(node) == "map":
            nodes.append((f"{path}/values", node.values))
        elif kind(node) == "union":
            nodes += ((f"{path}/{i}", branch) for i, branch in enumerate(node.schemas))
        elif kind(node) == "record":
            for i, field in enumerate(node.fields):
                place = f"{path}/fields/{i}"
                if field.has_default and (reason := _misfit(field.type, field.default)) is not None:
                    _refuse(where, f"{place}/default", f"the default of field {field.name!r} does not fit: {reason}")
                nodes.append((f"{place}/type", field.type))


def _misfit(schema: Any, value: Any) -> str | None:
    """Why a default is none of its schema's values, or None; its depth is that of the text."""
    name = kind(schema)
    if name == "union":
        # any branch since 1.12; the first alone before, which readers of either age understand
        fits = any(_misfit(branch, value) is None for branch in schema.schemas)
        return None if fits else f"{_shown(value)} is of no branch of the union"
    if name == "record":
        return _record_misfit(schema, value)
    if name == "array" and isinstance(value, list):
        return next((reason for item in value if (reason := _misfit(schema.items, item)) is not None), None)
    if name == "map" and isinstance(value, dict):
        return next((r for item in value.values() if (r := _misfit(schema.values, item)) is not None), None)
    return None if _fits(schema, name, value) else f"{_shown(value)} is no {name}"


def _record_misfit(schema: Any, value: Any) -> str | None:
    if not isinstance(value, dict):
        return f"{_shown(value)} is no record, which is written as an object"
    for field in schema.fields:
        if field.name in value:
            if (reason := _misfit(field.type, value[field.name])) is not None:
                return f"{field.name}: {reason}"
        elif not field.has_default:
            return f"the object lacks the field {field.name!r}, which has no default of its own"
    return None


def _fits(schema: Any, name: str, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match name:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "int":
            return number and isinstance(value, int) and -_INT <= value < _INT
        case "long":
            return number and isinstance(value, int) and -_LONG <= value < _LONG
        case "float" | "double":
            return number
        case "string":
            return isinstance(value, str)
        case "enum":
            return value in schema.symbols
        case "bytes":
            return isinstance(value, str) and all(character <= "\xff" for character in value)
        case "fixed":
            return isinstance(value, str) and all(c <= "\xff" for c in value) and len(value) == schema.size
    return False


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]} …"


def _refuse(where: str, path: str, reason: str) -> NoReturn:
    raise InvalidSchemaError(f"{where}: {path}: {reason}.")
