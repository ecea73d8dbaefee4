"""The rules that a pair of JSON Schemas breaks."""

from __future__ import annotations

from commons_events.compatibility._json_schema._compare import compare
from commons_events.compatibility._json_schema._differences import walk
from commons_events.compatibility._json_schema._load import load
from commons_events.compatibility._violation import Violation

__all__ = ["differences", "violations"]

_MOST_REPORTED = 1_000
"""A message with more helps nobody, and a few lines of schema may have billions of paths."""


def violations(reader: str, writer: str, *, lenient: bool = False) -> list[Violation]:
    """Why a reader with one JSON Schema may not read what another one allows, by the rules of Confluent's registry.

    Drafts 4, 6, 7, 2019-09 and 2020-12, by ``$schema``; without it, draft 7. A path is a JSON pointer after ``#``, in
    which references are followed and ``prefixItems`` is called ``items``, as the registry does.

    Args:
        reader: the schema of whoever reads, as JSON text; for backward compatibility, the new one.
        writer: the schema of whoever wrote, as JSON text; for backward compatibility, the old one.
        lenient: the registry's lenient policy: a property may be added to an open content model, since a writer is
            taken not to have put something else there.

    Returns:
        The broken rules in the order of the schema, at most 1,000; empty where all that was written can be read.

    Raises:
        InvalidSchemaError: one of the two is no JSON Schema, or refers to another document.
    """
    outcome = compare(load(writer, "writer"), load(reader, "reader"), lenient=lenient)
    return [
        Violation(path=f"#{path}", rule=found.rule, message=found.message, advice=found.advice)
        for path, found in walk(outcome, broken=True, limit=_MOST_REPORTED)
    ]


def differences(reader: str, writer: str) -> list[tuple[str, str]]:
    """What differs, harmless or not, as pairs of a rule and a path; at most 1,000. Arguments as for `violations`."""
    outcome = compare(load(writer, "writer"), load(reader, "reader"), lenient=False)
    return [(found.rule, f"#{path}") for path, found in walk(outcome, broken=False, limit=_MOST_REPORTED)]
