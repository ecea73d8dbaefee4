"""Projections: read models that typed handlers make of stored events, in any SQLAlchemy table.

Apart from `commons_events.sourcing` itself, since it imports SQLAlchemy.
"""

from commons_events.sourcing._projection import Projection
from commons_events.sourcing._projection_states import ParkedEvent, ProjectionStates, ProjectionStatus
from commons_events.sourcing._projector import Projector
from commons_events.sourcing._rebuild import RebuildProgress

__all__ = ["ParkedEvent", "Projection", "ProjectionStates", "ProjectionStatus", "Projector", "RebuildProgress"]
