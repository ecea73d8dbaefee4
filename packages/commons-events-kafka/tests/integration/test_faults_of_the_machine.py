"""The network between clients and broker is cut or blocked, and the broker's disk is full; nothing confirmed is lost.

``COMMONS_EVENTS_CHAOS=N`` runs each N times as long.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from commons_events.errors import PublishError
from commons_events.testing import TcpProxy
from commons_events.testing.services import KafkaCluster, ServiceError, ServiceUnavailableError, free_port, start_kafka

from .faults import ROUNDS, Run

pytestmark = pytest.mark.asyncio

PROXY = free_port()
"""Where clients find the broker of these tests."""
DISK = 96
"""Megabytes that the broker may fill."""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """A small disk; None where this user may mount none."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(folder)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


@pytest.fixture(scope="module")
def kafka(disk: Path | None) -> Iterator[KafkaCluster]:
    """A broker of these tests' own, which tells clients to come by way of the proxy."""
    settings = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{PROXY}"}
    if disk is not None:
        settings["log.dirs"] = str(disk / "data")
    try:
        kafka = start_kafka(settings=settings)
    except ServiceUnavailableError as error:
        pytest.skip(str(error))
    with kafka:
        if not isinstance(kafka, KafkaCluster):
            pytest.skip(f"Kafka came by {kafka.way}, whose disk and listeners are not this machine's own")
        yield kafka


def proxy_to(kafka: KafkaCluster) -> TcpProxy:
    host, _, port = kafka.bootstrap_servers.rpartition(":")
    return TcpProxy(host, int(port), listen=PROXY)


async def new_run(kafka: KafkaCluster, proxy: TcpProxy) -> Run:
    run = Run(kafka)
    run.servers = proxy.address
    await run.declare()
    return run


@pytest.mark.parametrize("how", ["cut", "block"])
async def test_a_network_that_is_lost_and_comes_again(kafka: KafkaCluster, how: str) -> None:
    async with proxy_to(kafka) as proxy:
        run = await new_run(kafka, proxy)
        leave = asyncio.Event()
        sending = run.begin(run.send())
        handling = run.begin(run.consume(leave, session_timeout_ms=2_000, heartbeat_interval_ms=300))
        for _ in range(ROUNDS):
            await run.more(100, "before the loss")
            proxy.cut() if how == "cut" else proxy.block()
            await asyncio.sleep(3.0)  # longer than the session
            proxy.restore()
        await run.sent(100, "after the loss")
        run.stop.set()
        await sending
        await run.until(lambda: not run.history.missing(), "handling after the loss")
        leave.set()
        await handling
        run.history.check()


async def test_a_broker_whose_disk_is_full(kafka: KafkaCluster, disk: Path | None) -> None:
    if disk is None:
        pytest.skip("a small disk is mounted by root alone, and not in every container")
    async with proxy_to(kafka) as proxy:
        run = await new_run(kafka, proxy)
        leave = asyncio.Event()
        sending = run.begin(run.send(again=PublishError))  # it may still say that it could not write
        handling = run.begin(run.consume(leave))
        await run.more(100, "before the disk is full")
        filler = disk / "filler"
        await asyncio.to_thread(fill, filler)
        # A broker that can't write its log gives up.
        await run.until(lambda: not runs(kafka), "the broker's end")
        filler.unlink()
        await asyncio.to_thread(kafka.start)
        await run.sent(100, "with room on the disk")
        run.stop.set()
        await sending
        await run.until(lambda: not run.history.missing(), "handling with room on the disk")
        leave.set()
        await handling
        run.history.check()


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(1 << 16))
        except OSError:
            pass


def runs(kafka: KafkaCluster) -> bool:
    """Whether the broker's process is there."""
    try:
        kafka.pid()
    except ServiceError:
        return False
    return True
