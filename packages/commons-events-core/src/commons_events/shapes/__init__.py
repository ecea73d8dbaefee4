"""What an event class is made of: its fields' types as a small tree, for formats that have types of their own.

The tree is read off pydantic's core schema, so aliases, generics, forward references and ``Annotated`` are as pydantic
understood them. A format walks it once a class, and makes its schema and its codec from it.
"""

from commons_events.shapes._reading import shape_of
from commons_events.shapes._shape import (
    NO_DEFAULT,
    Array,
    Enumeration,
    Field,
    FieldNumber,
    Kind,
    Literals,
    Map,
    Other,
    Record,
    Scalar,
    Shape,
    Tuple,
    Union,
)

__all__ = [
    "NO_DEFAULT",
    "Array",
    "Enumeration",
    "Field",
    "FieldNumber",
    "Kind",
    "Literals",
    "Map",
    "Other",
    "Record",
    "Scalar",
    "Shape",
    "Tuple",
    "Union",
    "shape_of",
]
