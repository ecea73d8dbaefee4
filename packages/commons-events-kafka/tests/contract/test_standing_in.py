"""What stands in for Apache Kafka where it can't be had keeps the contract too, as far as each can serve it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from commons_events.kafka import KafkaSubscription, KafkaTransport
from commons_events.testing.contracts import SHORT, Scale, TransportContract
from commons_events.testing.services import KAFKA, RunningKafka, ServiceUnavailableError
from commons_events.transport import Capabilities, Subscription, Transport, TransportSettings

pytestmark = pytest.mark.skipif(
    "COMMONS_EVENTS_CHAOS" not in os.environ,
    reason="the whole contract twice more, on what stands in for Apache Kafka: `make chaos` runs it",
)
UNCLAIMED = "the client can do what this broker can't, so that the claim is less than the protocol"
END = "it counts a batch as one record, so that the end of a partition is wrong"


class Limited(KafkaTransport):
    """Claims what the broker beneath can serve."""

    lacks: ClassVar[dict[str, Any]] = {}

    @property
    def capabilities(self) -> Capabilities:
        return dataclasses.replace(super().capabilities, **self.lacks)


@pytest.fixture(scope="module")
def standing_in() -> Iterator[Callable[[str], RunningKafka]]:
    """Starts a Kafka that comes one way, whatever others there are; once each."""
    running: dict[str, RunningKafka] = {}

    def get(way: str) -> RunningKafka:
        if way not in running:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("COMMONS_EVENTS_TEST_KAFKA", way)
                try:
                    running[way] = KAFKA.start()
                except ServiceUnavailableError as error:
                    pytest.skip(str(error))
        return running[way]

    yield get
    for kafka in running.values():
        kafka.stop()


class OnStandIn:
    """One way to a Kafka, whatever others there are, for the tests of a class."""

    scale: ClassVar[Scale] = SHORT
    timeout: ClassVar[float] = 20.0
    hang_after: ClassVar[float] = 60.0
    quiet: ClassVar[float] = 0.4
    nack_delay: ClassVar[float] = 0.3
    way: ClassVar[str]
    options: ClassVar[dict[str, object]] = {}
    transport: ClassVar[type[Limited]]
    cannot: ClassVar[dict[str, str]] = {}
    """Tests that it can't serve, and why."""
    kafka: RunningKafka

    @pytest.fixture(autouse=True)
    def _kafka(self, request: pytest.FixtureRequest, standing_in: Callable[[str], RunningKafka]) -> None:
        reason = self.cannot.get(request.node.name)
        if reason is not None:
            pytest.skip(f"{self.way} can't serve {request.node.name}: {reason}")
        self.kafka = standing_in(self.way)

    async def make_transport(self) -> Transport:
        options = {"connect.timeout.ms": 30_000, "session.timeout.ms": self.kafka.session_timeout_ms, **self.options}
        settings = TransportSettings(url=f"kafka://{self.kafka.bootstrap_servers}", options=options)
        return self.transport.from_settings(settings)

    async def lose(self, subscription: Subscription) -> None:
        assert isinstance(subscription, KafkaSubscription)
        await subscription.abandon()


class OfTansu(Limited):
    # Aborted records are visible, and its messages are in memory.
    lacks: ClassVar[dict[str, Any]] = {"transactions": False, "durability": "process"}


class OfMock(Limited):
    # It serves no Admin call, and no offsets in transactions.
    lacks: ClassVar[dict[str, Any]] = {"transactions": False, "durability": "process", "declare": False}


class TestTansu(OnStandIn, TransportContract):
    """Tansu, an open broker in Rust, from PyPI."""

    way: ClassVar[str] = "tansu"
    transport: ClassVar[type[Limited]] = OfTansu
    cannot: ClassVar[dict[str, str]] = {
        "test_claims_agree_with_what_is_there": UNCLAIMED,
        "test_seek_to_the_end": END,
        "test_seek_to_an_offset": END,
        "test_seek_to_a_time": "it answers with wrong offsets",
        "test_browsing_shows_what_is_stored": END,
        "test_browsing_touches_no_group": END,
        "test_a_group_can_start_at_the_latest": END,
        "test_many_close_at_once": "a join waits for half a session, so that ten at once take longer than a test may",
    }
    options: ClassVar[dict[str, object]] = {"heartbeat.interval.ms": 300}


class TestMockCluster(OnStandIn, TransportContract):
    """librdkafka's mock cluster, in the test's process."""

    way: ClassVar[str] = "mock"
    transport: ClassVar[type[Limited]] = OfMock
    cannot: ClassVar[dict[str, str]] = {
        "test_claims_agree_with_what_is_there": UNCLAIMED,
        "test_seek_to_a_time": "it answers with the end",
    }
    options: ClassVar[dict[str, object]] = {"allow.auto.create.topics": True, "heartbeat.interval.ms": 300}
