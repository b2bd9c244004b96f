"""Signals of a process that imports the standard library alone."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = textwrap.dedent("""
    import runpy, time
    signals = runpy.run_path('vit_jax/run/signals.py')
    signals['end_on_signals']('program')
    signals['defer']()
    print('ready', flush=True)
    time.sleep({pause})
    try:
        if signals['has_come']():
            signals['stop']()
    except KeyboardInterrupt:
        print('saved')
""")


def start(pause):
    """A process that saves what it has after `pause` seconds if a signal has come by then."""
    process = subprocess.Popen(
        [sys.executable, '-c', SCRIPT.format(pause=pause)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == 'ready\n'
    return process


def test_two_signals_within_a_second_are_one():
    """timeout(1) signals its process and then the group; that must not cost the checkpoint."""
    process = start(2)
    for _ in range(2):
        process.terminate()
        time.sleep(0.1)
    output, error = process.communicate(timeout=30)
    assert output == 'saved\n'
    assert error.count('\n') == 1 and 'SIGTERM: saving after this step' in error


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(number):
    process = start(60)
    process.send_signal(number)
    assert 'saving after this step' in process.stderr.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.2)
    process.send_signal(number)
    output, error = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert output == '' and f'{number.name} again: ended at once' in error
