"""The contract suite: what every transport, producer, consumer and serializer keeps, as pytest classes to subclass.

A third party subclasses one, says how its broker is reached, and runs pytest::

    class TestMyTransport(TransportContract):
        async def make_transport(self) -> Transport:
            return MyTransport(...)

A test whose capability the transport does not claim is skipped, and says so. Any other test may be overridden only with
``@pytest.mark.xfail(reason=…)`` or ``skip(reason=…)``; a class that drops one without a reason cannot be made. The
behaviours follow the universal publish-subscribe suites known from Watermill.
"""

try:
    import pytest
    import pytest_asyncio
except ImportError as error:
    raise ImportError(
        f"The contract suite needs {error.name}, which is not installed. "
        'Install it with: pip install "commons-events-testing[contracts]"',
        name=error.name,
    ) from error

# Before the modules below are imported, or their assertions would fail without saying what was compared.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in ("_broker", "_consumer", "_consuming", "_event_store", "_producer", "_router", "_serializer")
    ),
    *(
        f"{__name__}._event_store_{part}"
        for part in ("appending", "following", "groups", "input", "model", "reading", "transactions")
    ),
    *(
        f"{__name__}._transport_{part}"
        for part in ("closing", "groups", "messages", "optional", "publishing", "receiving", "settling", "transactions")
    ),
)
del pytest, pytest_asyncio

from commons_events.testing.contracts._broker import FULL, SHORT, BrokerContract, Scale  # noqa: E402
from commons_events.testing.contracts._consumer import ConsumerContract  # noqa: E402
from commons_events.testing.contracts._contract import Contract, ContractError, requires  # noqa: E402
from commons_events.testing.contracts._event_store import EventStoreContract  # noqa: E402
from commons_events.testing.contracts._producer import ProducerContract  # noqa: E402
from commons_events.testing.contracts._router import RouterContract  # noqa: E402
from commons_events.testing.contracts._serializer import SerializerContract  # noqa: E402
from commons_events.testing.contracts._transport import TransportContract  # noqa: E402

__all__ = [
    "FULL",
    "SHORT",
    "BrokerContract",
    "ConsumerContract",
    "Contract",
    "ContractError",
    "EventStoreContract",
    "ProducerContract",
    "RouterContract",
    "Scale",
    "SerializerContract",
    "TransportContract",
    "requires",
]
