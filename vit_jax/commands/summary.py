"""Show a model's arguments, parameters, FLOPs and memory."""

import argparse
import math

from vit_jax.commands import options
from vit_jax.model.arguments import argument_names
from vit_jax.model.vit import ViT


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'weights', metavar='VARIANT|RUN|WEIGHTS', help=f'such as B/16, or a {options.WEIGHTS}'
    )
    text = 'show the memory of training on this many images'
    parser.add_argument('--batch-size', type=options.positive, help=text)
    options.add_overrides(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prints the arguments, a table of parameters, and what the model costs."""
    import jax

    from vit_jax.model.arguments import EXECUTION
    from vit_jax.model.flops import flops_per_image
    from vit_jax.model.shapes import parameter_shapes
    from vit_jax.model.variants import create_model
    from vit_jax.run.directory import run_options
    from vit_jax.run.storage import open_path
    from vit_jax.train.memory import training_memory

    if (path := open_path(arguments.weights)).exists():
        weights = options.read(arguments)
        class_names = weights.description['class_names']
        # A run says how it trained; weights alone do not depend on it.
        trained = run_options(path, 'model')
        execution = {name: trained[name] for name in EXECUTION if trained.get(name) is not None}
        model = weights.model.clone(**execution | options.overrides(arguments))
    else:
        model = create_model(arguments.weights, **options.overrides(arguments))
        class_names = None
    options.print_table([(name, str(getattr(model, name))) for name in argument_names(ViT)])
    if class_names:
        print(f'classes: {", ".join(class_names)}')
    print(f'one image: {flops_per_image(model) / 1e9:,.3f} GFLOP in matrix products')
    if arguments.batch_size:
        state, step = training_memory(model, arguments.batch_size)
        print(
            f'training on {arguments.batch_size} images with AdamW, as XLA plans it for '
            f'{jax.devices()[0].device_kind}: {(state + step) / 2**30:,.2f} GiB, of which '
            f'{state / 2**30:,.2f} parameters and moments, {step / 2**30:,.2f} the step'
        )
    shapes = parameter_shapes(model)
    rows = [(n, ' x '.join(map(str, s)), f'{math.prod(s):,}') for n, s in shapes.items()]
    total = sum(map(math.prod, shapes.values()))
    print()
    options.print_table([*rows, ('all parameters', '', f'{total:,}')])
