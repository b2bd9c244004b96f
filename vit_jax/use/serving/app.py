"""A web server around a Predictor: the page, and the same as JSON."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import jax
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vit_jax.model.shapes import abstract_variables, pair
from vit_jax.use.predict import Predictor
from vit_jax.use.serving.answering import Answering
from vit_jax.use.serving.batching import Busy
from vit_jax.use.serving.gate import Gate
from vit_jax.use.serving.monitoring import Monitoring
from vit_jax.use.serving.openapi import MAX_TOP_K, describe_api
from vit_jax.use.serving.uploads import (
    CLOSE,
    Limits,
    Memory,
    Upload,
    content_length,
    discard,
    read_uploads,
)

PAGE = Path(__file__).parent / 'page'
TYPES = {
    '.html': 'text/html',
    '.css': 'text/css',
    '.js': 'text/javascript',
    '.svg': 'image/svg+xml',
}
FLAGS = {'true': True, 'false': False}


class App(Starlette):
    """An ASGI application. The model is compiled here: the first request is as fast as any.

    Args:
      predictor: of the model that answers.
      limits: of what clients may send.
      name: of the model, for the page.
      hosts: names by which clients may call this server; None for any.

    Attributes:
      stopping: whether the server is about to end; it still answers.
    """

    def __init__(
        self,
        predictor: Predictor,
        limits: Limits | None = None,
        *,
        name: str = 'model',
        hosts: frozenset[str] | None = None,
    ) -> None:
        self.stopping = False
        self._predictor, self._name = predictor, name
        self._limits = limits = limits or Limits()
        self._monitoring = Monitoring()
        self._answering = Answering(predictor, limits, self._monitoring.on_batch)
        self._monitoring.waiting.set_function(lambda: self._answering.num_admitted)
        self._memory = Memory(limits.bytes_in_memory)
        paths = {
            '/predict': self._predict,
            '/model': self._describe,
            '/healthz': self._health,
            '/metrics': self._metrics,
            '/openapi.json': self._openapi,
        }
        routes = [
            Route(path, answer, methods=['POST' if path == '/predict' else 'GET'])
            for path, answer in paths.items()
        ]
        routes += [
            Route('/' if path.name == 'index.html' else f'/{path.name}', _file(path))
            for path in PAGE.iterdir()
        ]

        def count(path: str, status: int) -> None:
            known = path if path in paths else 'page'
            self._monitoring.requests.labels(known, str(status)).inc()

        gate = Middleware(Gate, hosts=hosts, is_stopping=lambda: self.stopping, count=count)
        super().__init__(
            routes=routes,
            middleware=[gate],
            exception_handlers={
                HTTPException: _explain,
                Busy: _explain_busy,
                ClientDisconnect: _end,
            },
            lifespan=_lifespan,
        )

    def close(self) -> None:
        """Ends the threads after all that was accepted."""
        self._answering.close()

    async def _predict(self, request: Request) -> Response:
        """POST /predict: classes, and attention if asked for, of each picture of a form."""
        begun = time.perf_counter()
        top_k, with_attention = _read_query(request)
        with contextlib.ExitStack() as held:
            uploads = await self._receive(request, with_attention, held)
            answers = await self._answer(uploads, top_k, with_attention)
        for answer in answers:
            kind = 'bad' if 'error' in answer else 'classified'
            self._monitoring.pictures.labels(kind).inc()
        self._monitoring.seconds.observe(time.perf_counter() - begun)
        status = 422 if any('error' in answer for answer in answers) else 200
        return JSONResponse({'answers': answers}, status)

    async def _receive(
        self, request: Request, with_attention: bool, held: contextlib.ExitStack
    ) -> list[Upload]:
        """The files of a request, with room for them in memory and in the queue, which it holds."""
        limits = self._limits
        try:
            async with asyncio.timeout(limits.read_seconds):
                num_bytes = content_length(request, limits)
                try:
                    self._answering.check_room(with_attention)
                    held.enter_context(self._memory.take(num_bytes))
                except Busy:
                    await discard(request, limits)
                    raise
                uploads = await read_uploads(request, limits)
                held.enter_context(self._answering.admit(len(uploads), with_attention))
                return uploads
        except TimeoutError:
            text = f'expected the whole request within {limits.read_seconds:g} s'
            raise HTTPException(408, text, CLOSE) from None

    async def _answer(
        self, uploads: list[Upload], top_k: int, with_attention: bool
    ) -> list[dict[str, Any]]:
        seconds = self._limits.answer_seconds
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.gather(
                    *(self._answering.answer(upload, top_k, with_attention) for upload in uploads)
                )
        except TimeoutError:
            text = f'no answer within {seconds:g} s; try again with fewer pictures'
            raise HTTPException(503, text, {'Retry-After': '10'}) from None

    async def _describe(self, request: Request) -> Response:
        """GET /model: what the page says of the model, and what may be sent to it."""
        model, preprocessing, limits = (
            self._predictor.model,
            self._predictor.preprocessing,
            self._limits,
        )
        shapes = jax.tree.leaves(abstract_variables(model))
        return JSONResponse(
            {
                'name': self._name,
                'classes': self._predictor.class_names,
                'image_size': preprocessing.image_size,
                'patch_size': pair(model.patch_size),
                'channels': preprocessing.channels,
                'crop_fraction': preprocessing.crop_fraction,
                'layers': model.depth,
                'heads': model.heads,
                'parameters': sum(math.prod(x.shape) for x in shapes),
                'limits': {
                    'pictures': limits.pictures,
                    'picture_bytes': limits.picture_bytes,
                    'jpeg_pixels': limits.jpeg_pixels,
                    'other_pixels': limits.other_pixels,
                },
            }
        )

    async def _health(self, request: Request) -> Response:
        """GET /healthz: 503 when the server is about to end."""
        status = 'stopping' if self.stopping else 'ready'
        return JSONResponse({'status': status}, 503 if self.stopping else 200)

    async def _metrics(self, request: Request) -> Response:
        return Response(self._monitoring.text(), media_type='text/plain; version=0.0.4')

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(describe_api(self._limits))


@contextlib.asynccontextmanager
async def _lifespan(app: Any) -> AsyncIterator[None]:
    yield
    app.close()


def _file(path: Path) -> Callable[[Request], Awaitable[Response]]:
    """A file of the page, read once."""
    content, kind = path.read_bytes(), TYPES[path.suffix]

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


def _read_query(request: Request) -> tuple[int, bool]:
    """top_k and attention of a request."""
    top_k = request.query_params.get('top_k', '5')
    if not (top_k.isascii() and top_k.isdecimal() and 1 <= int(top_k[:9]) <= MAX_TOP_K):
        raise HTTPException(400, f'top_k: expected 1 to {MAX_TOP_K}, got {top_k[:20]!r}', CLOSE)
    flag = request.query_params.get('attention', 'false')
    if flag not in FLAGS:
        raise HTTPException(400, f'attention: expected true or false, got {flag[:20]!r}', CLOSE)
    return int(top_k), FLAGS[flag]


async def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({'error': error.detail}, error.status_code, error.headers)


async def _explain_busy(request: Request, error: Exception) -> Response:
    assert isinstance(error, Busy)
    headers = {'Retry-After': str(math.ceil(error.seconds))}
    return JSONResponse({'error': str(error)}, 503, headers)


async def _end(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it
