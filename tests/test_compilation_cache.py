import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def start(folder, data_dir, number):
    """A run of two steps; returns the files in the cache after it."""
    environment = os.environ | {'XDG_CACHE_HOME': str(folder / 'cache')}
    environment |= {'JAX_ENABLE_COMPILATION_CACHE': 'true', 'XLA_FLAGS': ''}
    command = [sys.executable, 'train.py', '--config=configs/digits.py']
    command += [f'--workdir={folder}/run{number}', f'--config.data.dir={data_dir}']
    command += ['--config.model.depth=2', '--config.model.dim=16', '--config.batch_size=16']
    command += ['--config.num_steps=2', '--config.optim.warmup_steps=1']
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return {path.name for path in (folder / 'cache/vit_jax').iterdir() if '-cache' in path.name}


def test_a_second_start_compiles_nothing(tmp_path, data_dir):
    first = start(tmp_path, data_dir, 1)
    assert any('train_step' in name or 'step' in name for name in first), first
    assert start(tmp_path, data_dir, 2) == first
