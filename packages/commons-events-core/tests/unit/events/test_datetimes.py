"""A naive datetime means UTC, and what has a time zone equals its own round trip (reading notes 6 and 7)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, Field

from commons_events import Event

NAIVE = datetime(2024, 5, 6, 7, 8, 9, 123456)
AWARE = NAIVE.replace(tzinfo=UTC)


class Stamp(BaseModel):
    at: datetime
    maybe: datetime | None = None


class Times(Event):
    event_type = "unit.times"
    at: datetime = NAIVE
    made: datetime = Field(default_factory=lambda: NAIVE)
    maybe: datetime | None = None
    some: list[datetime] = []
    named: dict[str, datetime] = {}
    pair: tuple[datetime, int] | None = None
    unique: set[datetime] = set()
    either: int | datetime = 0
    stamp: Stamp | None = None
    stamps: list[Stamp] = []
    day: date | None = None
    clock: time | None = None
    span: timedelta | None = None


def round_trips(event: Times) -> bool:
    again = Times.from_json(event.to_json())
    return again == event and again.to_json() == event.to_json()


def test_a_naive_datetime_becomes_aware_in_utc_wherever_it_stands() -> None:
    event = Times(
        at=NAIVE,
        maybe=NAIVE,
        some=[NAIVE, AWARE],
        named={"a": NAIVE},
        pair=(NAIVE, 1),
        unique={NAIVE},
        either=NAIVE,
        stamp={"at": NAIVE, "maybe": NAIVE},
        stamps=[{"at": NAIVE}],
        timestamp=NAIVE,
    )
    assert event.at == event.maybe == event.timestamp == event.either == AWARE
    assert event.some == [AWARE, AWARE]
    assert event.named == {"a": AWARE}
    assert event.pair == (AWARE, 1)
    assert event.unique == {AWARE}
    assert event.stamp == Stamp(at=AWARE, maybe=AWARE)
    assert event.stamps == [Stamp(at=AWARE)]
    assert round_trips(event)


def test_a_naive_default_and_default_factory_become_aware() -> None:
    event = Times()
    assert event.at == event.made == AWARE
    assert round_trips(event)


def test_a_naive_datetime_inside_a_model_that_was_made_before_becomes_aware() -> None:
    event = Times(stamp=Stamp(at=NAIVE, maybe=NAIVE), stamps=[Stamp(at=NAIVE)])
    assert event.stamp == Stamp(at=AWARE, maybe=AWARE)
    assert event.stamps == [Stamp(at=AWARE)]
    assert round_trips(event)


def test_a_model_with_a_naive_datetime_as_default_becomes_aware() -> None:
    class Defaulted(Event):
        stamp: Stamp = Stamp(at=NAIVE)
        made: Stamp = Field(default_factory=lambda: Stamp(at=NAIVE))

    event = Defaulted()
    assert event.stamp.at == event.made.at == AWARE
    assert Defaulted.from_json(event.to_json()) == event


def test_naive_text_means_utc_when_decoding_and_constructing() -> None:
    assert Times.from_json(b'{"at": "2024-05-06T07:08:09.123456"}').at == AWARE
    assert Times(at="2024-05-06T07:08:09.123456").at == AWARE


def test_what_post_init_assigns_becomes_aware() -> None:
    class Completes(Event):
        at: datetime | None = None

        def __post_init__(self) -> None:
            super().__post_init__()
            self.at = NAIVE

    assert Completes().at == AWARE


def test_model_copy_with_a_naive_update_becomes_aware() -> None:
    assert Times().model_copy(update={"at": NAIVE}).at == AWARE


def test_a_given_offset_is_kept() -> None:
    zone = timezone(timedelta(hours=5, minutes=45))
    event = Times(at=datetime(2024, 1, 1, tzinfo=zone))
    assert event.at.utcoffset() == timedelta(hours=5, minutes=45)
    assert Times.from_json(event.to_json()).at.utcoffset() == timedelta(hours=5, minutes=45)


@pytest.mark.parametrize("fold", [0, 1])
def test_a_zone_s_repeated_hour_keeps_its_instant(fold: int) -> None:
    at = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
    event = Times(at=at, some=[at])
    offset = timedelta(hours=1 if fold else 2)
    assert event.at.utcoffset() == offset
    assert event.at.astimezone(UTC) == at.astimezone(UTC)
    again = Times.from_json(event.to_json())
    assert again == event
    assert again.at.utcoffset() == offset


def test_a_time_that_the_clocks_skipped_equals_its_round_trip() -> None:
    at = datetime(2024, 3, 31, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    event = Times(at=at)
    assert event.at.timestamp() == at.timestamp()
    assert round_trips(event)


@pytest.mark.parametrize(
    "zone", [ZoneInfo("Europe/Amsterdam"), ZoneInfo("Asia/Kolkata"), timezone(timedelta(hours=1, seconds=7))]
)
def test_an_offset_that_is_not_whole_minutes_keeps_its_instant(zone: tzinfo) -> None:
    at = datetime(1850, 6, 1, 12, 0, tzinfo=zone)
    event = Times(at=at)
    assert event.at - at == timedelta(0)
    assert round_trips(event)


@pytest.mark.parametrize(
    "zone", [timezone(timedelta(hours=23, minutes=59)), timezone(-timedelta(hours=23, minutes=59))]
)
def test_the_widest_offsets_round_trip(zone: timezone) -> None:
    assert round_trips(Times(at=datetime(2024, 1, 1, tzinfo=zone)))


@pytest.mark.parametrize("at", [datetime.min, datetime.max, datetime(1, 1, 1, 0, 0, 0, 1), datetime(9999, 12, 31)])
@pytest.mark.parametrize("as_utc", [False, True])
def test_the_first_and_last_datetimes_round_trip(at: datetime, as_utc: bool) -> None:
    event = Times(at=at.replace(tzinfo=UTC) if as_utc else at)
    assert event.at == at.replace(tzinfo=UTC)
    assert round_trips(event)


@pytest.mark.parametrize(
    "make",
    [
        lambda: datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        lambda: datetime.max.replace(tzinfo=timezone(-timedelta(hours=12))),
        lambda: datetime.min.replace(tzinfo=timezone(timedelta(hours=1, seconds=7))),
        lambda: datetime.max.replace(tzinfo=timezone(-timedelta(seconds=7))),
        lambda: datetime.max.replace(tzinfo=ZoneInfo("America/New_York")),
        lambda: datetime.min.replace(tzinfo=ZoneInfo("Europe/Amsterdam")),
    ],
)
def test_a_datetime_at_the_edge_with_an_offset_round_trips_or_is_a_value_error(make: Callable[[], datetime]) -> None:
    try:
        event = Times(at=make())
    except ValueError:
        return
    assert round_trips(event)


class _OddZone(tzinfo):
    def utcoffset(self, _when: datetime | None) -> timedelta | None:
        return None

    def dst(self, _when: datetime | None) -> timedelta | None:
        return None

    def tzname(self, _when: datetime | None) -> str | None:
        return None


def test_a_zone_without_an_offset_is_as_naive_as_none() -> None:
    event = Times(at=NAIVE.replace(tzinfo=_OddZone()))
    assert event.at == AWARE
    assert round_trips(event)


class _Subclass(datetime):
    pass


def test_a_datetime_of_a_subclass_equals_its_round_trip() -> None:
    event = Times(at=_Subclass(2024, 1, 1))
    assert event.at == datetime(2024, 1, 1, tzinfo=UTC)
    assert round_trips(event)


@pytest.mark.parametrize(
    "clock",
    [
        time(0),
        time(23, 59, 59, 999999),
        time(12, 0, tzinfo=UTC),
        time(12, 0, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        time(12, 0, tzinfo=timezone(-timedelta(hours=9, minutes=30))),
    ],
)
def test_a_time_of_day_round_trips_with_its_offset(clock: time) -> None:
    event = Times(clock=clock)
    again = Times.from_json(event.to_json())
    assert again.clock == clock
    assert again.clock is not None
    assert again.clock.utcoffset() == clock.utcoffset()


def test_a_time_with_a_zone_s_rules_has_no_offset_of_its_own_and_round_trips_or_is_refused() -> None:
    try:
        event = Times(clock=time(12, 0, tzinfo=ZoneInfo("Europe/Berlin")))
    except ValueError:
        return
    assert round_trips(event)


def test_a_time_with_an_offset_of_seconds_round_trips_or_is_refused() -> None:
    try:
        event = Times(clock=time(12, 0, tzinfo=timezone(timedelta(hours=1, seconds=7))))
    except ValueError:
        return
    assert round_trips(event)


@pytest.mark.parametrize(
    "span",
    [
        timedelta(0),
        timedelta(microseconds=1),
        timedelta(microseconds=-1),
        timedelta(seconds=-1, microseconds=1),
        timedelta(days=-1, hours=3, microseconds=7),
        timedelta(days=400, hours=1),
        timedelta(days=999_999_999, hours=23, minutes=59, seconds=59, microseconds=999_999),
        timedelta(days=-999_999_999),
        timedelta(milliseconds=1500),
    ],
    ids=str,
)
def test_a_timedelta_round_trips_to_the_microsecond(span: timedelta) -> None:
    event = Times(span=span)
    assert Times.from_json(event.to_json()).span == span


@pytest.mark.parametrize("day", [date.min, date.max, date(2024, 2, 29)])
def test_a_date_round_trips(day: date) -> None:
    assert Times.from_json(Times(day=day).to_json()).day == day


@pytest.mark.parametrize("value", [NAIVE, AWARE, date(2024, 1, 1), time(1), timedelta(1)])
def test_a_time_inside_any_is_refused_because_json_would_not_give_it_back(value: Any) -> None:
    class Loose(Event):
        anything: Any = None

    with pytest.raises(ValueError, match=type(value).__name__):
        Loose(anything={"at": [value]})
