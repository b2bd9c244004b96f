"""The metrics of a run for Weights & Biases (https://docs.wandb.ai), an optional package."""

from typing import Any

from vit_jax.errors import InputError
from vit_jax.run.storage import AnyPath, is_remote


class WandbRun:
    """A run in a project of Weights & Biases; the same one after each interruption.

    Whether it is sent to a server, and to which, is up to the package's own settings, such as the
    environment variable WANDB_MODE.

    Args:
      project: its name there.
      run: a unique name of the run; None for a new one.
      run_directory: holds the package's own files, unless it is in a bucket.
      config: every option, nested.

    Raises:
      InputError: if the run cannot be started, for example without a login.
    """

    def __init__(
        self, project: str, run: str | None, run_directory: AnyPath, config: dict[str, Any]
    ) -> None:
        import wandb

        try:
            self._run = wandb.init(
                project=project,
                id=run,
                name=run_directory.name,
                resume='allow',
                dir=None if is_remote(run_directory) else str(run_directory),
                config=config,
            )
        except wandb.Error as error:
            raise InputError(f'wandb_project: cannot start a run: {error}') from None

    def write(self, line: dict[str, Any]) -> None:
        """Logs a line of `metrics.jsonl`."""
        split = line['split']
        metrics = {f'{split}/{n}': x for n, x in line.items() if n not in ('step', 'split')}
        self._run.log(metrics, step=line['step'])

    def close(self) -> None:
        """Waits until everything is sent."""
        self._run.finish()
