"""What each option means, from the comments of `configs/default.py`."""

import ast
import io
import tokenize
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict

from vit_jax.train.config import default_config, recipe_folder


class Option(NamedTuple):
    """An option of a config.

    Args:
      name: with its section.
      default: its value in `configs/default.py`.
      text: its unit and its reason; '' if the name says it all.
    """

    name: str
    default: Any
    text: str


def explain_options(*words: str) -> list[Option]:
    """The options whose name or explanation contains all words, in their order.

    Case does not count, and neither do hyphens: 'warm-up' is in warmup_steps.
    """
    source = (recipe_folder() / 'default.py').read_text()
    comments = {
        token.start[0]: token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    (function,) = (x for x in ast.parse(source).body if isinstance(x, ast.FunctionDef))
    found = {}
    for statement in function.body:
        if not isinstance(statement, ast.Assign):
            continue
        first, last = statement.lineno, statement.end_lineno or statement.lineno
        # Comments that stand above it, on lines of their own, and those beside it.
        while (above := comments.get(first - 1)) and not above.line.split('#')[0].strip():
            first -= 1
        lines = [comments[n].string for n in range(first, last + 1) if n in comments]
        name = ast.unparse(statement.targets[0]).removeprefix('config.')
        found[name] = ' '.join(line.strip('# ') for line in lines)
    defaults = flatten_dict(default_config().to_dict(), sep='.')
    options = [Option(name, defaults[name], found[name]) for name in found if name in defaults]

    def plain(text: str) -> str:
        return text.lower().replace('-', '')

    wanted = plain(' '.join(words)).split()
    return [x for x in options if all(word in plain(f'{x.name} {x.text}') for word in wanted)]
