"""What tests of event-driven code need: mocks, an isolated in-process broker, fixtures and the contract suite.

The contract suite is `commons_events.testing.contracts`; it alone needs the extra ``[contracts]``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from commons_events.testing._fault_run import FaultRun
    from commons_events.testing._given_when_then import Decided, Given, given
    from commons_events.testing._harness import EventTestHarness
    from commons_events.testing._history import History
    from commons_events.testing._mock_consumer import MockConsumer, MockDelivery
    from commons_events.testing._mock_producer import MockProducer, SentEvent
    from commons_events.testing._router_run import RouterRun
    from commons_events.testing._tcp_proxy import TcpProxy
    from commons_events.testing._wait import eventually

__all__ = [
    "Decided",
    "EventTestHarness",
    "FaultRun",
    "Given",
    "History",
    "MockConsumer",
    "MockDelivery",
    "MockProducer",
    "RouterRun",
    "SentEvent",
    "TcpProxy",
    "eventually",
    "given",
]

_HOMES = {
    "Decided": "_given_when_then",
    "EventTestHarness": "_harness",
    "FaultRun": "_fault_run",
    "Given": "_given_when_then",
    "History": "_history",
    "MockConsumer": "_mock_consumer",
    "MockDelivery": "_mock_consumer",
    "MockProducer": "_mock_producer",
    "RouterRun": "_router_run",
    "SentEvent": "_mock_producer",
    "TcpProxy": "_tcp_proxy",
    "eventually": "_wait",
    "given": "_given_when_then",
}


# Lazy, since pytest imports this package at every start to reach the plugin in it.
def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
