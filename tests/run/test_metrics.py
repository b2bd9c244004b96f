import numpy as np
import pytest

from vit_jax.run.metrics import read_metrics
from vit_jax.run.report import Reporter
from vit_jax.train.trainer import train

OPTIONS = dict(
    batch_size=8,
    max_loss=9.0,
    examples=np.arange,
    epochs=lambda steps: steps / 4,
    flops=1,
    learning_rate=lambda step: 0.1,
)


def test_a_damaged_line_costs_that_line_alone(tmp_path):
    lines = [f'{{"step": {step}, "split": "train", "loss": 1.0}}' for step in range(1, 20)]
    lines[3], lines[7], lines[11] = '{"step": 4, "spl', 'null', '\udcff[]'
    lines[14] = '{"step": 15, "split": "train", "loss": null}'
    text = '\n'.join(lines).encode('utf-8', errors='surrogateescape')
    (tmp_path / 'metrics.jsonl').write_bytes(text)
    steps = [line['step'] for line in read_metrics(tmp_path / 'metrics.jsonl')]
    assert steps == [step for step in range(1, 20) if step not in (4, 8, 12, 15)]


def test_tensorboard_equals_metrics_jsonl(digits_config, tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    train(digits_config, str(tmp_path))
    scalars = {}
    for path in (tmp_path / 'tensorboard').iterdir():
        content = path.read_bytes()
        while content:  # TFRecord: length, its checksum, the message, its checksum
            length = int.from_bytes(content[:8], 'little')
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                scalars[event.step, value.tag] = value.simple_value
    for line in read_metrics(tmp_path / 'metrics.jsonl'):
        step, split = line.pop('step'), line.pop('split')
        for name, value in line.items():
            assert scalars.pop((step, f'{split}/{name}')) == pytest.approx(value)
    assert not scalars


def test_metrics_are_fetched_one_step_late(tmp_path):
    """So the device runs the next step while the host waits for the last one's metrics."""
    running = {'loss': np.zeros(()), 'accuracy': np.zeros(())}  # stand-ins for arrays in flight
    options = OPTIONS | dict(num_steps=2, log_every_steps=1)
    with Reporter(tmp_path, first_step=0, **options) as report:
        report.train(1, running)
        running['loss'][...] = 3.0  # only now is the device done
        report.train(2, {'loss': np.array(2.0), 'accuracy': np.zeros(())})
        assert [(line['step'], line['loss']) for line in report.lines] == [(1, 3.0)]
        report.flush()
        assert [(line['step'], line['loss']) for line in report.lines] == [(1, 3.0), (2, 2.0)]


def test_evaluation_time_does_not_count_as_training(tmp_path, monkeypatch):
    now = [0.0]

    def tick():
        now[0] += 1e-6
        return now[0]

    monkeypatch.setattr('time.perf_counter', tick)
    options = OPTIONS | dict(num_steps=4, log_every_steps=0)
    with Reporter(tmp_path, first_step=0, **options) as report:
        for step, _ in enumerate(report.timed(iter('abcd')), 1):
            now[0] += 2.0  # of training
            report.train(step, {'loss': np.ones(()), 'accuracy': np.ones(())})
            if step == 2:
                report.test(step, {'loss': 1.0, 'accuracy': 1.0})
                now[0] += 1000.0  # of evaluating and saving
        report.flush()
        assert report.lines[-1]['images_per_second'] == pytest.approx(8 / 2.0, rel=1e-3)


def test_compiling_the_schedule_does_not_count_as_training(tmp_path, monkeypatch):
    now, compiled = [0.0], []

    def learning_rate(step):
        if not compiled:
            compiled.append(step)
            now[0] += 1000.0
        return 0.1

    def tick():
        now[0] += 1e-6
        return now[0]

    monkeypatch.setattr('time.perf_counter', tick)
    options = OPTIONS | dict(num_steps=4, log_every_steps=1, learning_rate=learning_rate)
    with Reporter(tmp_path, first_step=0, **options) as report:
        for step, _ in enumerate(report.timed(iter('abcd')), 1):
            now[0] += 2.0
            report.train(step, {'loss': np.ones(()), 'accuracy': np.ones(())})
        report.flush()
        speeds = [line.get('images_per_second') for line in report.lines]
        assert speeds[1:3] == pytest.approx([8 / 2.0, 8 / 2.0], rel=1e-3)
