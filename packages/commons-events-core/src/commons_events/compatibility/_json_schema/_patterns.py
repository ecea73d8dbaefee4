"""Regular expressions of schemas: ECMA-262's, as far as the engines at hand know them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from pydantic_core import SchemaError, SchemaValidator, core_schema

__all__ = ["searcher"]

_ECMA = (
    (re.compile(r"\(\?<(?![=!])"), "(?P<"),  # a named group
    (re.compile(r"\\[pP]\{[^}]*\}"), r"\\w"),  # a class of Unicode, roughly
    (re.compile(r"\\/"), "/"),
)


@lru_cache(maxsize=1024)
def searcher(pattern: str) -> Callable[[str], bool]:
    """Whether a pattern is found somewhere in a text.

    Rust's engine does it in linear time. It knows no look-around and no references back; Python's does those.

    Raises:
        re.error: it is no regular expression.
    """
    try:
        validator = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError:
        translated = pattern
        for ecma, python in _ECMA:
            translated = ecma.sub(python, translated)
        compiled = re.compile(translated)
        return lambda text: compiled.search(text) is not None
    return lambda text: bool(validator.isinstance_python(text))
