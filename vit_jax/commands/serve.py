"""vit_jax serve."""

import importlib.util
from typing import Any

import click

from vit_jax.commands import common

PACKAGES = ('starlette', 'uvicorn', 'python_multipart', 'prometheus_client')


@click.command()
@click.argument('weights', metavar=common.WEIGHTS)
@click.option(
    '--host', default='127.0.0.1', show_default=True, help='Address; 0.0.0.0 for all networks.'
)
@click.option(
    '--port',
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help='Port; 0 for one that is free.',
)
@click.option(
    '--max-megabytes',
    type=click.FloatRange(0.001, 10_000),
    default=10,
    show_default=True,
    help='Refuse larger files.',
)
@click.option(
    '--max-seconds',
    type=click.FloatRange(0.01, 3600),
    default=10,
    show_default=True,
    help='Model time that may wait; who comes later is told to come back.',
)
@common.normalisation
@common.overrides
def command(
    weights: str,
    host: str,
    port: int,
    max_megabytes: float,
    max_seconds: float,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    overrides: dict[str, Any],
) -> None:
    """Show a model in the browser, and answer programs.

    The page takes a picture and shows its classes and the attention of each layer and head. POST
    /predict gives programs the same as JSON; /openapi.json describes it. SIGTERM and Ctrl-C end
    the server after all that it accepted is answered.
    """
    from pathlib import PurePath

    from vit_jax.errors import InputError

    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f'expected the packages of the extra serve, but {", ".join(missing)} is missing; '
            f"pip install 'vit_jax[serve]', or in a clone: pip install '.[serve]'"
        )
    from vit_jax.use.serving.app import App
    from vit_jax.use.serving.gate import LOOPBACK
    from vit_jax.use.serving.server import Server, bind
    from vit_jax.use.serving.uploads import Limits

    common.check_exists(weights)
    with bind(host, port) as bound:
        predictor = common.open_predictor(weights, mean, std, overrides)
        click.echo('compiling the model …', err=True)
        num_bytes = int(max_megabytes * 1e6)
        limits = Limits(
            picture_bytes=num_bytes,
            request_bytes=max(num_bytes + 100_000, Limits.request_bytes),
            waiting_seconds=max_seconds,
        )
        is_loopback = bound.getsockname()[0] in LOOPBACK
        app = App(
            predictor,
            limits,
            name=PurePath(weights).name or 'model',
            hosts=LOOPBACK if is_loopback else None,
        )

        def announce(url: str) -> None:
            click.echo(f'{url}  (Ctrl-C ends it)')
            if not is_loopback:
                click.echo(
                    'anybody who reaches this address can use it; there is no password', err=True
                )

        Server(app, bound, announce).answer()
