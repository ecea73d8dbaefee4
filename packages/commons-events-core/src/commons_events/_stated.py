"""What is stated as it was annotated: a word or a type that does not fit is refused where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from commons_events.errors import ConfigurationError

__all__ = ["check_types"]


@cache
def _annotated(where: type | Callable[..., Any]) -> type[BaseModel]:
    hints: dict[str, Any] = {name: (hint, None) for name, hint in get_type_hints(where).items() if name != "return"}
    return create_model("Stated", __config__=ConfigDict(arbitrary_types_allowed=True, strict=True), **hints)


def check_types(what: str, annotated: type | Callable[..., Any], stated: Mapping[str, Any]) -> None:
    """Check values by the annotations of a class or function, without converting any.

    Args:
        what: begins the message.
        annotated: has the annotations.
        stated: the values, by the annotated names.

    Raises:
        ConfigurationError: some are of another type, or another word than may stand there; the message names all.
    """
    try:
        _annotated(annotated).model_validate(stated)
    except ValidationError as error:
        problems = dict[str, list[str]]()
        for problem in error.errors(include_url=False, include_context=False):
            name = str(problem["loc"][0])
            problems.setdefault(f"{name}={stated[name]!r} does not fit", []).append(problem["msg"])
        wrong = "; ".join(f"{value}: {', or '.join(messages)}" for value, messages in problems.items())
        raise ConfigurationError(f"{what}: {wrong}.") from None
