"""Uvicorn, with an end that loses no answer and with bounds on slow clients."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vit_jax.errors import InputError
from vit_jax.use.serving.app import App

HEAD_SECONDS = 10.0  # until a connection has sent the head of a request
SENT_SECONDS = 60.0  # until a client has read an answer
FAREWELL_SECONDS = 0.5  # that the server still listens after a signal, and says that it ends
REQUEST_SECONDS = 1.0  # after that, for requests that are on their way
END_SECONDS = 90  # for what was accepted
MAX_CONNECTIONS = 900  # 1,024 is the usual limit of open files
REFUSAL = (
    b'HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n'
    b'Content-Length: 0\r\n\r\n'
)


class Protocol(H11Protocol):
    """HTTP/1.1, where a client that stalls loses its connection."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.write(REFUSAL)
            transport.close()
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._cancel()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(SENT_SECONDS, self._abort_unread)
        self._watch_head()

    def shutdown(self) -> None:
        """Of uvicorn: closes the connection, after a request that may be on its way."""
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(REQUEST_SECONDS, self._close_unused)
        else:
            super().shutdown()

    def _close_unused(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.close()

    def _watch_head(self) -> None:
        """Sets the deadline if the head of a request is incomplete."""
        if self.conn.their_state is not h11.IDLE:
            self._cancel()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _cancel(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _abort_unread(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()


class Server(uvicorn.Server):
    """Ends on SIGTERM and SIGINT, with exit status 0, after all that it accepted is answered.

    First it goes on for half a second in which each answer says that the connection closes: so
    that no client sends a request into a connection that is being closed.

    Args:
      app: to serve.
      bound: the socket, see `bind`.
      on_start: is told the URL once connections are accepted.
    """

    def __init__(self, app: App, bound: socket.socket, on_start: Callable[[str], None]) -> None:
        self._app, self._bound, self._on_start = app, bound, on_start
        config = uvicorn.Config(
            app,
            http=Protocol,
            loop='asyncio',
            ws='none',
            lifespan='on',
            log_level='error',
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=END_SECONDS,
        )
        super().__init__(config)

    def answer(self) -> None:
        """Answers requests until a signal, or `should_exit`, ends it."""
        self.run([self._bound])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start(url(self._bound))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.stopping = True
        await asyncio.sleep(FAREWELL_SECONDS)
        await self._stop_listening()
        await super().shutdown(sockets)

    async def _stop_listening(self) -> None:
        """Accepts what waits for it, since closing the socket would reset those connections."""
        accepted = []
        with contextlib.suppress(OSError):  # BlockingIOError after the last
            while True:
                accepted.append(self._bound.accept()[0])
        for server in self.servers:
            server.close()
        self._bound.close()
        for connection in accepted:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> Protocol:
        return Protocol(self.config, self.server_state, self.lifespan.state)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with contextlib.suppress(KeyboardInterrupt), super().capture_signals():
            yield
            self._captured_signals.clear()  # they would be raised again


def bind(host: str, port: int) -> socket.socket:
    """A socket of an address, which does not listen yet.

    Raises:
      InputError: if the address is in use or not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise InputError(
            f'--host, --port: expected a free address, got {host}, port {port}: '
            f'{error.strerror or error}'
        ) from None
    return bound


def url(bound: socket.socket) -> str:
    """Of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f'http://[{host}]:{port}' if ':' in host else f'http://{host}:{port}'
