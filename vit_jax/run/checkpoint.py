"""Orbax checkpoints, written atomically in the background; the newest and the best are kept."""

import os
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers as managers


class Checkpoints:
    """The checkpoints of a run directory; a context manager that waits for unfinished saves.

    Args:
      run_directory: holds, or will hold, `checkpoints/`.
      read_only: never create, write or delete anything.
    """

    def __init__(self, run_directory: str | os.PathLike[str], read_only: bool = False) -> None:
        def accuracy(metrics: dict[str, float]) -> float:
            return metrics['accuracy']

        best = managers.BestN(get_metric_fn=accuracy, n=1, keep_checkpoints_without_metrics=False)
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # Orbax warns about read_only, which is intended
        options = ocp.CheckpointManagerOptions(
            preservation_policy=managers.AnyPreservationPolicy([managers.LatestN(1), best]),
            best_fn=accuracy,
            read_only=read_only,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
        )
        self._manager = ocp.CheckpointManager(
            Path(run_directory).absolute() / 'checkpoints', options=options
        )
        logging.set_verbosity(verbosity)

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    @property
    def steps(self) -> list[int]:
        """Steps of all checkpoints, in order."""
        return sorted(self._manager.all_steps())

    @property
    def newest(self) -> int | None:
        """Step of the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the highest test accuracy, the latest of equals."""
        return self._manager.best_step()

    def save(self, step: int, state: Any, metrics: dict[str, float] | None) -> None:
        """Starts to save a state; returns once its arrays may change, before they are on disk.

        Args:
          step: number of steps done.
          state: a `vit_jax.train.step.TrainState`. Its parameters are stored apart from the rest,
            so that they can be restored alone.
          metrics: on the test split at this step, with 'accuracy'; None if it was not evaluated,
            in which case it is never the best.
        """
        training = {'step': state.step, 'opt_state': state.opt_state}
        items = {'params': state.params, 'training': training}
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        self._manager.save(step, args=ocp.args.Composite(**args), metrics=metrics)

    def restore(self, step: int, like: Any) -> Any:
        """A state, on the first device.

        Args:
          step: of an existing checkpoint.
          like: a TrainState of jax.ShapeDtypeStruct.
        """
        training = {'step': like.step, 'opt_state': like.opt_state}
        items = self._restore(step, {'params': like.params, 'training': training})
        return like.replace(params=items['params'], **items['training'])

    def restore_params(self, step: int, like: Any) -> Any:
        """The parameters alone, on the first device; `like` are their jax.ShapeDtypeStruct."""
        return self._restore(step, {'params': like})['params']

    def _restore(self, step: int, items: dict[str, Any]) -> Any:
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        placed = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), items
        )
        args = {name: ocp.args.StandardRestore(tree) for name, tree in placed.items()}
        return self._manager.restore(step, args=ocp.args.Composite(**args))
