"""Decorated handlers keep their types, as a user sees it."""

from __future__ import annotations

from typing import assert_type

from commons_events import Delivery, Event, EventRouter, Retry
from commons_events.router import DeadLetters


class UserRegistered(Event):
    event_type = "typing.user.registered"
    email: str


router = EventRouter()


@router.subscribe("user-events", group="g", retry=Retry(attempts=5), dead_letter=DeadLetters("dlq", order="key"))
async def on_registered(event: UserRegistered, message: Delivery) -> str:
    return event.email


@router.subscribe("user-events", group="h")
def in_a_thread(event: UserRegistered) -> int:
    return 1


async def calls() -> None:
    event = UserRegistered(email="john@example.com")
    assert_type(in_a_thread(event), int)
    in_a_thread("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
