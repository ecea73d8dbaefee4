"""What a transport guarantees, stated field by field."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from commons_events.errors import ConfigurationError

__all__ = ["CONTRACT_VERSION", "Capabilities"]

CONTRACT_VERSION = 2
"""The version of the contract that this core knows. A field added later names the version that it came with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """A transport's claims. The contract suite tests each one, and the guarantee table in the docs is made of them.

    Every field has to be stated: what is not claimed is not hoped for. A transport names the ``contract`` version
    that it was written against; fields that came with a later version may then stay None ("not stated").

    Raises:
        ConfigurationError: a field of the named contract version is missing.
    """

    contract: int
    """The contract version that these claims were written against: `CONTRACT_VERSION` at that time."""
    ordering: Literal["none", "key"] | None = None
    """``key``: messages of one key and topic are first delivered in the order in which they were confirmed."""
    durability: Literal["process", "broker"] | None = None
    """What a confirmed message survives: only this process's life, or a restart of clients and broker."""
    consumer_groups: bool | None = None
    """Consumers of one group share a topic's messages, and every group gets all of them."""
    new_group_start: Literal["earliest", "latest"] | None = None
    """Where a group starts that has never been seen."""
    redelivery: bool | None = None
    """A message that was nacked, or whose consumer was lost, is delivered again."""
    redelivery_delay: bool | None = None
    """A nack's delay is kept: the message does not come again sooner."""
    attempts: bool | Literal["member"] | None = None
    """`Delivery.attempt` counts the deliveries of a message truthfully: in the group, or (``member``) those by the
    member that has it, so that after a loss it is 1 again."""
    settles_each: bool | None = None
    """A finished message never comes again. False on a log, which keeps one position a group and partition: a message
    that was finished behind an unfinished one comes again with it, where the consumer is lost or closed."""
    publish_delay: bool | None = None
    """`Delaying`: a message can be published to become visible later."""
    pause: bool | None = None
    """`Pausable`: a subscription can stop and go on without leaving its group."""
    seek: bool | None = None
    """`Seekable`: a group's position can be set to an offset, a time, the beginning or the end."""
    browse: bool | None = None
    """`Browsable`: stored messages can be read without any effect on groups."""
    declare: bool | None = None
    """`Declaring`: topics can be made, listed and deleted."""
    transactions: bool | None = None
    """`Transactional`: messages and settlements become visible together or not at all."""
    binary_headers: bool | None = None
    """Header values are any bytes; otherwise they are UTF-8 text."""
    repeated_headers: bool | None = None
    """One header name may come several times in a message."""
    binary_keys: bool | None = None
    """Keys are any bytes; otherwise they are UTF-8 text."""
    tombstones: bool | None = None
    """A message may have no value at all (None), told apart from an empty one."""
    back_pressure: bool | None = None
    """A full topic makes publishing wait, so that memory stays bounded."""
    max_message_bytes: int | None = None
    """The most bytes of value, key and headers together; None where the transport knows no limit."""

    def __post_init__(self) -> None:
        unstated = [f.name for f in fields(self) if getattr(self, f.name) is None and f.name not in _MAY_BE_NONE]
        missing = [name for name in unstated if _SINCE.get(name, 1) <= self.contract]
        if missing:
            raise ConfigurationError(
                f"Capabilities for contract version {self.contract} leave out: {', '.join(missing)}. State each one."
            )


_MAY_BE_NONE = {"max_message_bytes"}
_SINCE: dict[str, int] = {"settles_each": 2}
