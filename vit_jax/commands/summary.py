"""vit_jax summary."""

import math
from typing import Any

import click

from vit_jax.commands import common
from vit_jax.errors import InputError
from vit_jax.model.arguments import argument_names
from vit_jax.model.vit import ViT
from vit_jax.train.memory import CHIPS, counted_memory


@click.command()
@click.argument('weights', metavar='VARIANT|RUN|WEIGHTS')
@click.option(
    '--batch-size',
    type=common.POSITIVE,
    metavar='NUMBER',
    help='Show the memory of training on so many images.',
)
@click.option(
    '--device',
    type=click.Choice(list(CHIPS)),
    help='Show the largest batch that one of these trains on; none needs to be there.',
)
@click.option(
    '--mesh',
    metavar='DATA,FSDP,TENSOR',
    help='With --batch-size and --device: show the memory of each of several, as 1,8,1.',
)
@click.option(
    '--optimizer',
    metavar='NAME',
    help="Count the state of this one, see optim.name; default: a run's own, else adamw.",
)
@common.overrides
def command(
    weights: str,
    batch_size: int | None,
    device: str | None,
    mesh: str | None,
    optimizer: str | None,
    overrides: dict[str, Any],
) -> None:
    """Show a model's arguments, parameters, FLOPs and memory.

    VARIANT is a published one such as B/16.
    """
    import jax

    from vit_jax.model.arguments import EXECUTION
    from vit_jax.model.flops import flops_per_image
    from vit_jax.model.shapes import parameter_shapes
    from vit_jax.model.variants import VARIANTS, create_model
    from vit_jax.run.directory import run_options
    from vit_jax.run.storage import open_path
    from vit_jax.train.memory import largest_batch, planned_optimizer, training_memory

    arguments = {name: x for name, x in overrides.items() if name in argument_names(ViT)}
    path = open_path(weights)
    if not path.exists() and weights.partition('/')[0] not in VARIANTS:
        raise InputError(
            f'{weights}: no such run or weight file; or a variant, a size out of '
            f'{", ".join(VARIANTS)} and a patch in pixels, such as B/16'
        )
    if path.exists():
        read = common.read(weights, overrides)
        class_names = read.description['class_names']
        # A run says how it trained; weights alone do not depend on it.
        trained = run_options(path, 'model')
        execution = {name: trained[name] for name in EXECUTION if trained.get(name) is not None}
        model = read.model.clone(**execution | arguments)
    else:
        model = create_model(weights, **arguments)
        class_names = None
    optim = run_options(path, 'optim')
    optimizer = optimizer or optim.get('name', 'adamw')
    planned = planned_optimizer(optimizer, optim.get('moments_dtype', 'float32'))
    common.print_table([(name, str(getattr(model, name))) for name in argument_names(ViT)])
    if class_names:
        print(f'classes: {", ".join(class_names)}')
    print(f'one image: {flops_per_image(model) / 1e9:,.3f} GFLOP in matrix products')
    if mesh is not None:
        _print_mesh(model, batch_size, device, mesh, optimizer, planned)
        batch_size = device = None
    if batch_size:
        state, step = training_memory(model, batch_size, optimizer=planned)
        print(
            f'training on {batch_size} images with {optimizer}, as XLA plans it for '
            f'{jax.devices()[0].device_kind}: {(state + step) / 2**30:,.2f} GiB, of which '
            f'{state / 2**30:,.2f} parameters and moments, {step / 2**30:,.2f} the step'
        )
    if device:
        size, (state, step), compiled = largest_batch(model, CHIPS[device], planned)
        planner = 'as XLA plans it' if compiled else 'by our own count'
        largest = f'about {size:,} images' if size else 'not even one image'
        print(
            f'training on one {device} with {optimizer}: {largest}, {planner}: '
            f'{(state + step) / 2**30:,.2f} of {CHIPS[device].size / 2**30:,.2f} GiB'
        )
    shapes = parameter_shapes(model)
    rows = [(n, ' x '.join(map(str, s)), f'{math.prod(s):,}') for n, s in shapes.items()]
    total = sum(map(math.prod, shapes.values()))
    print()
    common.print_table([*rows, ('all parameters', '', f'{total:,}')])


def _print_mesh(
    model: ViT,
    batch_size: int | None,
    device: str | None,
    mesh: str,
    optimizer: str,
    planned: Any,
) -> None:
    """The memory of training on several devices, on each."""
    from vit_jax.train.checks import check_tensor

    sizes = tuple(int(size) if size.isdecimal() else 0 for size in mesh.split(','))
    if len(sizes) != 3 or min(sizes) < 1 or math.prod(sizes) >= 2**31:
        raise InputError(f'--mesh: expected DATA,FSDP,TENSOR, such as 1,8,1, got {mesh!r}')
    if not (batch_size and device):
        raise InputError('--mesh: expected --batch-size, over all devices, and --device')
    if batch_size % (sizes[0] * sizes[1]):
        raise InputError(
            f'--batch-size: expected a multiple of the {sizes[0] * sizes[1]} devices along data '
            f'and fsdp, got {batch_size}'
        )
    check_tensor('--mesh, TENSOR', model, sizes[2])
    state, step = counted_memory(model, batch_size, CHIPS[device], sizes, optimizer=planned)
    print(
        f'training on {batch_size:,} images with {optimizer} over {math.prod(sizes)} {device}: '
        f'{(state + step) / 2**30:,.2f} of {CHIPS[device].size / 2**30:,.2f} GiB on each, by our '
        f'own count, of which {state / 2**30:,.2f} parameters and moments'
    )
