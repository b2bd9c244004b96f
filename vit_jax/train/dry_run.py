"""What a step of a run takes, without running it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.model.shapes import pair
from vit_jax.model.vit import ViT
from vit_jax.parallel.compiled import collectives
from vit_jax.parallel.parallel import Jit, Pmap
from vit_jax.train.memory import held_bytes, planned_bytes
from vit_jax.train.step import Learner


def plan_step(
    learner: Learner, train_step: Any, parallel: Jit | Pmap, model: ViT, teacher: Any
) -> dict[str, Any]:
    """Compiles the step and prints its FLOPs, its memory and what its devices send each other.

    Args:
      learner: whose step it is.
      train_step: `Learner.train_step`, wrapped by `parallel`.
      parallel: how it runs over the devices.
      model: that it trains.
      teacher: see `Learner.train_step`.

    Returns:
      'flops', of the model, and of a teacher, on all devices; 'state_bytes', with a teacher's, and
      'step_bytes', on each device; 'collectives', by kind: how many, and the bytes of their
      results.
    """
    key, shape = jax.random.key(0), (*pair(model.image_size), model.channels)
    state = jax.eval_shape(learner.init, key, jnp.zeros((1, *shape)))
    rows = len(parallel.rows)
    batch = {
        'image': np.zeros((rows, *shape), np.uint8),
        'label': np.zeros(rows, np.int32),
        'position': np.zeros(rows, np.int32),
    }
    arguments = parallel.taken(state), parallel.put_batch(batch), key
    compiled = train_step.lower(*arguments, teacher=parallel.taken(teacher)).compile()
    flops = parallel.batch_size * learner.flops
    held = held_bytes([parallel.placed(state), parallel.placed(teacher)])
    needed = planned_bytes(compiled)
    sent = collectives(compiled.as_text())
    sending = ', '.join(
        f'{count:,} x {kind} ({size / 2**20:,.1f} MiB)' for kind, (count, size) in sent.items()
    )
    print(
        f'a step computes {flops / 1e12:,.3g} TFLOP, without what it recomputes; devices: '
        f'{parallel.mesh.size}\n'
        f'each device holds {held / 2**20:,.1f} MiB of state and needs {needed / 2**20:,.1f} MiB '
        f'in a step, as XLA plans it\n'
        f'in a step it takes part in: {sending or "no collectives"}'
    )
    return {'flops': flops, 'state_bytes': held, 'step_bytes': needed, 'collectives': sent}
