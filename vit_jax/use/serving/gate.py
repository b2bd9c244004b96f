"""What holds for every request: who may ask, and which headers an answer has."""

import re
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The page's own files and pictures from memory, and nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    'Content-Security-Policy': POLICY,
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Permissions-Policy': 'camera=(self), geolocation=(), microphone=()',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
}
OTHER_SITES = ('cross-site', 'same-site')
LOOPBACK = frozenset({'localhost', '127.0.0.1', '::1'})


class Gate:
    """Refuses requests that other sites make a browser send; sets headers; counts answers.

    A site whose name was made to point to this machine would pass for the server's own: so its
    name has to be known.

    Args:
      app: behind the gate.
      hosts: names of this server; None for any.
      is_stopping: whether the server is about to end. Then connections close after an answer.
      count: is told the path and the status of each answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str] | None,
        is_stopping: Callable[[], bool],
        count: Callable[[str, int], None],
    ) -> None:
        self._app, self._hosts = app, hosts
        self._is_stopping, self._count = is_stopping, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message['type'] == 'http.response.start':
                self._count(scope['path'], message['status'])
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault('Cache-Control', 'no-cache')
                if self._is_stopping():
                    headers['Connection'] = 'close'
            await send(message)

        if wrong := self._find_fault(scope):
            refusal = JSONResponse({'error': wrong}, 403, {'Connection': 'close'})
            await refusal(scope, receive, answer)
        else:
            await self._app(scope, receive, answer)

    def _find_fault(self, scope: Scope) -> str:
        headers = Headers(scope=scope)
        host = re.sub(r':\d+$', '', headers.get('host', '')).strip('[]').lower()
        if self._hosts is not None and host not in self._hosts:
            return f'expected one of the hosts {", ".join(sorted(self._hosts))}'
        if scope['method'] == 'POST' and headers.get('sec-fetch-site') in OTHER_SITES:
            return "expected a request of this server's own page, or of a program"
        return ''
