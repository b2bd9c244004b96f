"""What it takes to start train.py once data are prepared and programs compiled."""

import json

import processes
import pytest

pytestmark = pytest.mark.slow

# Runs train.py, then prints how often each of jax's events occurred, and the modules imported.
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
print(json.dumps([events, [*sys.modules]]))
"""


@pytest.fixture(scope='module')
def starts(tmp_path_factory, data_dir):
    """The events and modules of two runs of the same program, and the folder of their cache."""
    folder = tmp_path_factory.mktemp('starts')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(folder / 'cache'))
        for setting in ('COMPILATION_CACHE_DIR', 'PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'):
            patch.delenv(f'JAX_{setting}')  # those of the other tests
        outputs = []
        for number in range(2):
            command = ['-c', SCRIPT, '--config=configs/digits.py', f'--config.data.dir={data_dir}']
            command += ['--config.model.depth=2', '--config.model.dim=16', '--config.batch_size=16']
            command += ['--config.num_steps=2', '--config.optim.warmup_steps=1']
            outputs.append(processes.run(*command, f'--workdir={folder}/run{number}')[0])
    return [json.loads(output.splitlines()[-1]) for output in outputs], folder / 'cache' / 'vit_jax'


def test_the_second_compiles_nothing(starts):
    runs, cache = starts
    first, second = (
        [events.get(f'/jax/compilation_cache/cache_{what}', 0) for what in ('hits', 'misses')]
        for events, _ in runs
    )
    assert first[1] > 5
    assert any(cache.iterdir())
    assert second == [sum(first), 0]


def test_neither_imports_tensorflow(starts):
    for _, modules in starts[0]:
        assert 'jax' in modules and 'tensorflow' not in modules
