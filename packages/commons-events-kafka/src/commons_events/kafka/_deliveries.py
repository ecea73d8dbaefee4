"""What Kafka hands out: messages of a partition in runs, and deliveries of them that are made when looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from datetime import UTC, datetime
from gc import get_referents
from itertools import chain, groupby, starmap
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, NamedTuple, overload

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE

from commons_events.kafka._raw import RawMessage
from commons_events.message import Headers, Message
from commons_events.transport import DONE, Batch, Delivery, Outcome, TopicPartition

if TYPE_CHECKING:
    from commons_events.kafka._partition import PartitionState
    from commons_events.kafka._subscription import KafkaSubscription

__all__ = ["KafkaBatch", "KafkaDelivery", "Part", "Piece", "Redelivery", "Run", "to_message"]


class Part(NamedTuple):
    """Messages of one partition in the order of the log."""

    id: TopicPartition
    raws: list[RawMessage]


class KafkaDelivery(Delivery):
    """A delivery that reads of librdkafka's message what somebody asks for, and is made when somebody looks at it.

    What was said of it stands in its run, so that one that is made again knows it.
    """

    __slots__ = ("made", "place", "raw", "run", "value")

    if TYPE_CHECKING:

        def __init__(self) -> None: ...
    else:
        __init__ = object.__init__  # `_made` fills in what it has

    attempt = 1
    value: bytes
    """See `Delivery`."""
    raw: RawMessage
    """The message, as librdkafka gave it."""
    run: Run
    """Those that it was handed out with …"""
    place: int
    """… and its place among them."""
    made: Message
    """The message, once somebody has asked for it; unset before."""

    @property
    def outcome(self) -> Outcome | None:
        """See `Delivery`."""
        return _OUTCOMES[self.run.said[self.place]]

    @outcome.setter
    def outcome(self, outcome: Outcome | None) -> None:
        self.run.said[self.place] = _ACKED if outcome is _ACK else _OUTCOMES.index(outcome)

    @property
    def is_open(self) -> bool:
        """Whether it is not finished, and still this subscription's: what is said of it counts."""
        return self.run.open[self.place] == 1

    def ack(self) -> Awaitable[None]:
        """See `Delivery`."""
        run, place = self.run, self.place
        if run.said[place]:
            return DONE
        run.said[place] = _ACKED
        return run.state.settler.settle_delivery(self, _ACK, None)

    @property
    def message(self) -> Message:  # type: ignore[override]  # made late
        """The message as it lies in the log."""
        try:
            return self.made
        except AttributeError:
            self.made = made = to_message(self.raw)
            return made

    @property
    def key(self) -> bytes | None:
        """See `Delivery`."""
        return self.raw.key()

    @property
    def headers(self) -> Headers:
        """See `Delivery`."""
        return _headers(self.raw)

    @property
    def timestamp(self) -> datetime | None:
        """See `Delivery`."""
        return _timestamp(self.raw)

    @property
    def offset(self) -> int:  # type: ignore[override]  # it stands in the message
        """See `Delivery`."""
        return self.raw.offset()

    @property
    def subscription(self) -> KafkaSubscription:
        """Whose delivery it is."""
        return self.run.state.subscription

    settler = property(attrgetter("run.state.settler"), doc="See `Delivery`.")
    topic = property(attrgetter("run.state.id.topic"), doc="See `Delivery`.")
    partition = property(attrgetter("run.state.id.partition"), doc="See `Delivery`.")
    data = property(attrgetter("value"), doc="See `Delivery`.")
    body = data

    def __eq__(self, other: object) -> bool:
        return type(other) is KafkaDelivery and other.run is self.run and other.place == self.place

    def __hash__(self) -> int:
        return hash((self.run, self.place))


_ACK = Outcome.ACK
_OUTCOMES = (None, Outcome.ACK, Outcome.NACK, Outcome.RELEASE)
"""By their codes in `Run.said`."""
_ACKED = 1


class Redelivery(KafkaDelivery):
    """One that comes again, or waits behind one of its key that does."""

    __slots__ = ("attempt", "is_open", "outcome")
    attempt: int
    is_open: bool
    outcome: Outcome | None
    ack = Delivery.ack
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(self, raw: RawMessage, run: Run, attempt: int) -> None:
        self.raw, self.run, self.attempt = raw, run, attempt
        self.value = raw.value() or b""
        self.outcome = None
        self.is_open = True


class Run:
    """Messages of one partition that were handed out together, in the order of the log, and what was said of each."""

    __slots__ = ("left", "open", "raws", "said", "state")

    def __init__(self, state: PartitionState, raws: Sequence[RawMessage] = ()) -> None:
        self.state = state
        self.raws = raws
        self.left = len(raws)
        """How many are with the user, unfinished."""
        self.open = bytearray(b"\1") * len(raws)
        """1 for each that is unfinished and still ours."""
        self.said = bytearray(len(raws))
        """What was said of each, in codes."""

    def unfinished(self) -> Iterator[int]:
        """The offsets of those that are unfinished."""
        return (self.raws[place].offset() for place, is_open in enumerate(self.open) if is_open)

    def close_unsettled(self, start: int, stop: int) -> int:
        """Finish those from place ``start`` until ``stop`` of which nothing was said; returns how many there were."""
        said, still = self.said, self.open
        if not (said[start:stop].strip(b"\0") or 0 in still[start:stop]):  # most often
            said[start:stop] = bytes((_ACKED,)) * (stop - start)
            still[start:stop] = bytes(stop - start)
            return stop - start
        count = 0
        for place in range(start, stop):
            if not said[place]:
                said[place] = _ACKED
                count += still[place]
                still[place] = 0
        return count

    def forget(self) -> None:
        """Let go of all: what is out is stale."""
        self.open = bytearray(len(self.open))
        self.raws = ()


class KafkaBatch(Batch):
    """Messages of some runs, as deliveries that are made as they are looked at."""

    __slots__ = ("_all", "_length", "_popped")

    def __init__(self, pieces: Sequence[Piece], length: int | None = None) -> None:
        self._all = pieces
        self._length = sum([stop - start for _, _, start, stop in pieces]) if length is None else length
        self._popped = 0
        """How many were taken by `pop_each`."""

    def __len__(self) -> int:
        return self._length - self._popped

    def __iter__(self) -> Iterator[KafkaDelivery]:
        pieces = self.pieces
        return _made(*pieces[0]) if len(pieces) == 1 else chain.from_iterable(starmap(_made, pieces))

    @overload
    def __getitem__(self, place: int) -> KafkaDelivery: ...

    @overload
    def __getitem__(self, place: slice) -> list[KafkaDelivery]: ...

    def __getitem__(self, place: int | slice) -> KafkaDelivery | list[KafkaDelivery]:
        if isinstance(place, slice):
            return [*self][place]
        at = place + len(self) if place < 0 else place
        if at >= 0:
            for run, raws, start, stop in self.pieces:
                if at < stop - start:
                    return next(_made(run, raws, start + at, stop))
                at -= stop - start
        raise IndexError(f"no delivery {place} in a batch of {len(self)}")

    @property
    def pieces(self) -> Sequence[Piece]:
        """What is left, run by run."""
        return _divided(self._all, self._popped)[1] if self._popped else self._all

    def pop_each(self) -> Iterator[KafkaDelivery]:
        """See `Batch`."""
        for delivery in self:
            self._popped += 1
            yield delivery

    def popped(self) -> KafkaBatch:
        """See `Batch`."""
        if self._popped == self._length:
            return KafkaBatch(self._all, self._length)
        return KafkaBatch(_divided(self._all, self._popped)[0], self._popped)

    def take(self, limit: int) -> KafkaBatch:
        """See `Batch`."""
        pieces, length = self.pieces, len(self)
        if limit < length:
            length = limit
            pieces, _ = _divided(pieces, limit)
        self._popped += length
        return KafkaBatch(pieces, length)

    def by_topic(self) -> Iterator[tuple[str, KafkaBatch]]:
        """See `Batch`."""
        pieces = self.pieces
        if len(pieces) == 1:  # as it is most often
            yield _TOPIC(pieces[0]), self
            return
        for topic, some in groupby(pieces, _TOPIC):
            yield topic, KafkaBatch(list(some))

    @property
    def has_unsettled(self) -> bool:
        """See `Batch`."""
        return any(0 in run.said[start:stop] for run, _, start, stop in self.pieces)

    def unsettled(self) -> list[Delivery]:
        """See `Batch`."""
        return [delivery for delivery in self if delivery.outcome is None]

    def ack_unsettled(self) -> Awaitable[None]:
        """See `Batch`."""
        pieces = self.pieces
        return pieces[0].run.state.subscription.ack_unsettled(pieces) if pieces else DONE


class Piece(NamedTuple):
    """Some of a run: from place ``start`` until ``stop``."""

    run: Run
    raws: Sequence[RawMessage]
    """All of the run, which forgets them once it is finished."""
    start: int
    stop: int


_TOPIC = attrgetter("run.state.id.topic")


def _made(run: Run, raws: Sequence[RawMessage], start: int, stop: int) -> Iterator[KafkaDelivery]:
    """The deliveries of a piece."""
    for place in range(start, stop):
        delivery = KafkaDelivery()  # what an __init__ would do, without the call: every instruction counts
        delivery.raw = raw = raws[place]
        delivery.value = raw.value() or b""
        delivery.run = run
        delivery.place = place
        yield delivery


def _divided(pieces: Sequence[Piece], count: int) -> tuple[list[Piece], list[Piece]]:
    """The first ``count`` deliveries, and the others."""
    first, others = [], []
    for piece in pieces:
        size = piece.stop - piece.start
        middle = piece.start + min(count, size)
        if count > 0:
            first.append(piece._replace(stop=middle))
        if count < size:
            others.append(piece._replace(start=middle))
        count = max(count - size, 0)
    return first, others


def to_message(raw: RawMessage) -> Message:
    """Librdkafka's message as ours."""
    return Message(raw.topic(), raw.value(), raw.key(), _headers(raw), _timestamp(raw))


def _timestamp(raw: RawMessage) -> datetime | None:
    kind, milliseconds = raw.timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _headers(raw: RawMessage) -> Headers:
    try:
        given = raw.headers()
        if not given:
            return ()
        if all(map(_VALUE, given)):
            return tuple(given)  # type: ignore[arg-type]  # no value is None
    except SystemError:  # of one of these calls: the client leaves an exception behind, which the next one may meet
        given = _named(raw)
    return tuple([(name, value or b"") for name, value in given])


def _named(raw: RawMessage) -> list[tuple[str, bytes | None]]:
    """The headers of a message of which a name is no UTF-8: that is "\ufffd", what stands for what can't be read.

    The client does not give its bytes. It leaves holes in the tuples in the place of such names, and whoever looks into
    one ends the process, so the message gets others.
    """
    with_holes = raw.headers() or []
    headers = [pair if len(get_referents(pair)) > 1 else ("\ufffd", pair[1]) for pair in with_holes]
    raw.set_headers(headers)
    return headers


_VALUE = itemgetter(1)
