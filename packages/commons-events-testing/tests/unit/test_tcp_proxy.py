"""A network that can be cut and blocked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from commons_events.testing import TcpProxy

pytestmark = pytest.mark.asyncio


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def proxy_of(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[TcpProxy]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield TcpProxy("127.0.0.1", server.sockets[0].getsockname()[1])


@asynccontextmanager
async def proxy_of_an_echo() -> AsyncIterator[TcpProxy]:
    async with proxy_of(echo) as proxy, proxy:
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


async def test_who_has_said_all_still_gets_the_answer() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"answer to " + await reader.read())
        writer.close()

    async with proxy_of(answer) as proxy, proxy, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"all")
        writer.write_eof()
        assert await reader.read() == b"answer to all"
        writer.close()


@pytest.mark.parametrize("dies", [False, True], ids=["closes", "dies"])
async def test_a_blocked_network_hides_that_one_side_is_gone(dies: bool) -> None:
    ended, come = asyncio.Event(), bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                come.extend(data)
                writer.write(data)
        except ConnectionResetError:
            pass
        ended.set()
        writer.close()

    async with proxy_of(serve) as proxy, proxy, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        proxy.block()
        if dies:
            writer.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
            )
        writer.transport.abort()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ended.wait(), 0.3)
        proxy.restore()
        await ended.wait()
        assert come == b"1"


async def test_a_blocked_network_can_be_cut() -> None:
    async with proxy_of_an_echo() as proxy, asyncio.timeout(60):
        gone = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(2)]
        for reader, writer in gone:
            writer.write(b"1")
            assert await reader.readexactly(1) == b"1"
        proxy.block()
        gone[0][1].transport.abort()
        await asyncio.sleep(0.1)
        proxy.cut()
        assert await gone[1][0].read() == b""
        gone[1][1].close()


async def a_flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with pytest.raises(ConnectionError):
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()
    writer.close()


async def test_a_cut_reaches_a_connection_whose_client_does_not_read() -> None:
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await a_flood(reader, writer)
        over.set()

    async with proxy_of(serve) as proxy, proxy, asyncio.timeout(60):
        with socket.create_connection(("127.0.0.1", proxy.port)):
            await asyncio.sleep(0.5)  # long enough to fill what lies between
            proxy.cut()
            await over.wait()


async def test_its_end_waits_for_no_client_that_does_not_read() -> None:
    async with asyncio.timeout(60), proxy_of(a_flood) as proxy:
        async with proxy:
            client = socket.create_connection(("127.0.0.1", proxy.port))
            await asyncio.sleep(0.5)
        client.close()


async def test_it_may_be_used_again_but_not_twice_at_once() -> None:
    async with proxy_of(echo) as proxy, asyncio.timeout(60):
        for _ in range(2):
            async with proxy:
                reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
                writer.write(b"1")
                assert await reader.readexactly(1) == b"1"
                writer.close()
                with pytest.raises(RuntimeError, match="open already"):
                    await proxy.__aenter__()
