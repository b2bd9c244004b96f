"""vit_jax options."""

import textwrap

import click

from vit_jax.train.config import no_such_option
from vit_jax.train.explain import explain_options


@click.command()
@click.argument('words', metavar='[WORD]...', nargs=-1)
def command(words: tuple[str, ...]) -> None:
    """Explain the options of a config: all, or those with every WORD.

    Each is shown with its default; set it by --config.NAME=VALUE.
    """
    if not (found := explain_options(*words)):
        raise no_such_option(' '.join(words))
    for option in found:
        print(f'{option.name} = {option.default!r}')
        if option.text:
            print(textwrap.indent(textwrap.fill(option.text, 92), '    '))
