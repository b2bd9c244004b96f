"""vit_jax train."""

from pathlib import Path

import click

from vit_jax.commands.config import SETTINGS, config, read_config


@click.command(context_settings=SETTINGS)
@config
@click.option('--workdir', metavar='RUN', help='The run directory.  [default: runs/CONFIG]')
def command(arguments: tuple[str, ...], workdir: str | None) -> None:
    """Train a Vision Transformer.

    CONFIG is a recipe (cifar10, cifar100, cifar10_1h, default, deit3_b16, digits, fashion_mnist,
    finetune, finetune_head, finetune_lora, imagenet_b16_augreg, imagenet_s16 or photographs) or a
    file of your own, and --config=CONFIG means the same. `vit_jax options` lists every KEY. The
    same command on the same workdir resumes an interrupted run.

    Exit status: 0 finished; 1 the run diverged or a file cannot be written; 2 wrong input; 75 a
    signal (SIGTERM, SIGINT, SIGHUP) interrupted the run, which is saved: run the same command
    again.
    """
    name, options = read_config(arguments)
    workdir = workdir or str(Path('runs') / Path(name).stem)
    # Imported after the options are read, so that a wrong one fails immediately.
    from absl import logging

    from vit_jax.parallel.distributed import is_first
    from vit_jax.run.checkpoint import Checkpoints
    from vit_jax.run.compilation_cache import use_compilation_cache
    from vit_jax.run.quality import show_quality
    from vit_jax.train.trainer import train

    logging.set_verbosity(logging.FATAL)
    use_compilation_cache()
    result = train(options, workdir)
    if options.dry_run or not is_first():
        return
    print(f'{workdir}: finished after {result["step"]} steps, test {show_quality(result)}')
    with Checkpoints(workdir, read_only=True) as checkpoints:
        best = checkpoints.best()
        if best is not None and best != result['step'] and (tested := checkpoints.metrics(best)):
            found = f'best after {best} steps, {show_quality(tested)}'
            print(f'{workdir}: {found}: --step=best uses those weights')
