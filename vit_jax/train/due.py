"""When a run saves and evaluates."""

import dataclasses

from vit_jax.run.report import is_due


@dataclasses.dataclass(frozen=True)
class Due:
    """What is due after a number of steps; after the last step, everything is.

    Args:
      num_steps: length of the run.
      checkpoint_every_steps, eval_every_steps: periods; 0 for the last step alone.
    """

    num_steps: int
    checkpoint_every_steps: int
    eval_every_steps: int

    def save(self, step: int) -> bool:
        """Whether a checkpoint is due, with an evaluation."""
        return is_due(step, self.checkpoint_every_steps, self.num_steps)

    def test(self, step: int) -> bool:
        """Whether an evaluation is due."""
        return self.save(step) or is_due(step, self.eval_every_steps, self.num_steps)
