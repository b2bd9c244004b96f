"""vit_jax options."""

import textwrap

import click

from vit_jax.train.config import no_such_option
from vit_jax.train.explain import explain_options


@click.command()
@click.argument('text', default='')
def command(text: str) -> None:
    """Explain the options of a config, those with TEXT in their name or explanation.

    Each is shown with its default; set it by --config.NAME=VALUE.
    """
    if not (found := explain_options(text)):
        raise no_such_option(text)
    for option in found:
        print(f'{option.name} = {option.default!r}')
        if option.text:
            print(textwrap.indent(textwrap.fill(option.text, 92), '    '))
