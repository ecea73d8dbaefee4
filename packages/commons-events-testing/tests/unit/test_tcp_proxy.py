"""A network that can be cut and blocked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from commons_events.testing import TcpProxy

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def proxy_of_an_echo() -> AsyncIterator[TcpProxy]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, TcpProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy


async def test_it_passes_on_what_both_sides_send() -> None:
    async with proxy_of_an_echo() as proxy, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"to and fro")
        assert await reader.readexactly(10) == b"to and fro"
        assert proxy.address == f"127.0.0.1:{proxy.port}"
        writer.close()


async def test_what_is_cut_is_closed_until_it_is_restored() -> None:
    async with proxy_of_an_echo() as proxy, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        proxy.cut()
        assert await reader.read(1) == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await reader.read(1) == b""
        writer.close()
        proxy.restore()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"2")
        assert await reader.readexactly(1) == b"2"
        writer.close()


async def test_what_is_blocked_comes_once_it_is_restored() -> None:
    async with proxy_of_an_echo() as proxy, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.block()
        writer.write(b"later")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        proxy.restore()
        assert await reader.readexactly(5) == b"later"
        writer.close()
