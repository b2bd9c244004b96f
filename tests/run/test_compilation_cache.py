import json

import processes

# Runs train.py, then prints how often each of jax's events occurred.
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
    """Trains two steps; returns the hits and misses of the cache."""
    command = ['-c', SCRIPT, '--config=configs/digits.py']
    command += [f'--workdir={folder}/run{number}', f'--config.data.dir={data_dir}']
    command += ['--config.model.depth=2', '--config.model.dim=16', '--config.batch_size=16']
    command += ['--config.num_steps=2', '--config.optim.warmup_steps=1']
    output, _ = processes.run(*command)
    events = json.loads(output.splitlines()[-1])
    return [events.get(f'/jax/compilation_cache/cache_{what}', 0) for what in ('hits', 'misses')]


def test_second_start_compiles_nothing(tmp_path, data_dir, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    for setting in ('COMPILATION_CACHE_DIR', 'PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'):
        monkeypatch.delenv(f'JAX_{setting}')  # those of the other tests
    hits, misses = start(tmp_path, data_dir, 1)
    assert misses > 5
    assert any((tmp_path / 'cache/vit_jax').iterdir())
    again = start(tmp_path, data_dir, 2)
    assert again == [hits + misses, 0]
