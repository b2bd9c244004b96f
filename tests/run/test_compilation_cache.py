import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# train.py, then how often jax asked the cache.
SCRIPT = """
import collections, json, runpy, sys
from jax import monitoring
events = collections.Counter()
monitoring.register_event_listener(lambda event, **_: events.update([event]))
sys.argv[0] = 'train.py'
try:
    runpy.run_path('train.py', run_name='__main__')
except SystemExit as end:
    assert not end.code
print(json.dumps(events))
"""


def start(folder, data_dir, number):
    """A run of two steps; returns hits and misses of the cache."""
    environment = os.environ | {'XDG_CACHE_HOME': str(folder / 'cache')}
    environment |= {'JAX_ENABLE_COMPILATION_CACHE': 'true', 'XLA_FLAGS': ''}
    command = [sys.executable, '-c', SCRIPT, '--config=configs/digits.py']
    command += [f'--workdir={folder}/run{number}', f'--config.data.dir={data_dir}']
    command += ['--config.model.depth=2', '--config.model.dim=16', '--config.batch_size=16']
    command += ['--config.num_steps=2', '--config.optim.warmup_steps=1']
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    events = json.loads(process.stdout.splitlines()[-1])
    return [events.get(f'/jax/compilation_cache/cache_{what}', 0) for what in ('hits', 'misses')]


def test_a_second_start_compiles_nothing(tmp_path, data_dir):
    hits, misses = start(tmp_path, data_dir, 1)
    assert misses > 5
    assert any((tmp_path / 'cache/vit_jax').iterdir())
    again = start(tmp_path, data_dir, 2)
    assert again == [hits + misses, 0]
