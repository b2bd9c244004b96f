"""Orbax checkpoints, written in the background and atomically; the newest and the best stay."""

import os
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers as managers


class Checkpoints:
    """The checkpoints of a run directory; a context manager that waits for what is being written.

    Args:
      run_directory: holds, or will hold, `checkpoints/`.
      read_only: never creates, deletes or writes.
    """

    def __init__(self, run_directory: str | os.PathLike[str], read_only: bool = False) -> None:
        def accuracy(metrics: dict[str, float]) -> float:
            return metrics['accuracy']

        keep = managers.AnyPreservationPolicy(
            [managers.LatestN(1), managers.BestN(get_metric_fn=accuracy, n=1)]
        )
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # Orbax warns of read_only, which is what we ask for
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep,
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
        """Step of the newest checkpoint; None where there is none."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the highest test accuracy, the later of equals."""
        return self._manager.best_step()

    def save(self, step: int, items: dict[str, Any], metrics: dict[str, float]) -> None:
        """Starts to save; returns when the arrays may change, before they are on disk.

        Args:
          step: number of steps done.
          items: trees of arrays by name; each can be restored without the others.
          metrics: of the test split at this step, with 'accuracy'.
        """
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        self._manager.save(step, args=ocp.args.Composite(**args), metrics=metrics)

    def restore(self, step: int, items: dict[str, Any]) -> Any:
        """Restores items in the given shapes to the first device.

        Args:
          step: of a checkpoint that is there.
          items: trees of jax.ShapeDtypeStruct by name, not necessarily all that were saved.

        Returns:
          The same trees with arrays.
        """
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        placed = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), items
        )
        args = {name: ocp.args.StandardRestore(tree) for name, tree in placed.items()}
        return dict(self._manager.restore(step, args=ocp.args.Composite(**args)))
