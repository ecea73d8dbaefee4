"""The picture of the event store's tables in the docs is that of the tables."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from tools import event_store_picture as maker

pytest.importorskip("sqlalchemy", reason="the event store's tables need SQLAlchemy")


def test_the_picture_is_that_of_the_tables() -> None:
    assert maker.PICTURE.read_text("utf-8") == maker.picture(), "run: python -m tools.event_store_picture"


def test_every_table_and_column_is_in_it_and_inside_its_box() -> None:
    from commons_events.sourcing._tables import metadata, sqlite_metadata

    drawn = ElementTree.fromstring(maker.picture())
    words = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    for table in (*metadata.tables.values(), *sqlite_metadata.tables.values()):
        assert {table.name, *table.columns.keys()} <= words
    assert {"commons_events_events on SQLite", "commons_events_streams on SQLite"} <= words
    places = list(maker.boxes().values())
    for number, one in enumerate(places):
        for other in places[number + 1 :]:
            beside = one.x + one.width <= other.x or other.x + other.width <= one.x
            above = one.y + one.height <= other.y or other.y + other.height <= one.y
            assert beside or above
