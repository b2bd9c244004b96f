"""Early stopping: when a run ends, and that a resumed one ends there too."""

import shutil

import pytest

from vit_jax.errors import InputError
from vit_jax.run.metrics import read_metrics
from vit_jax.train.early_stopping import check_metric, stop_reason
from vit_jax.train.trainer import train


def lines(*values, metric='accuracy'):
    """The metrics of a run that was evaluated every ten steps."""
    found = []
    for step, value in enumerate(values, 1):
        found += [
            {'step': 10 * step, 'split': 'train', 'epoch': 0.1 * step, metric: 1.0},
            {'step': 10 * step, 'split': 'test', 'epoch': 0.1 * step, metric: value},
        ]
    return found


@pytest.mark.parametrize(
    'metric, values, patience, ends',
    [
        ('accuracy', (0.5,), 1, False),
        ('accuracy', (0.5, 0.4), 1, True),
        ('accuracy', (0.5, 0.6), 1, False),
        ('accuracy', (0.5, 0.5, 0.5), 2, True),  # a tie is no improvement
        ('accuracy', (0.5, 0.4, 0.3), 3, False),
        ('accuracy', (0.5, 0.4, 0.6, 0.3, 0.5), 2, True),
        ('accuracy', (0.5, 0.4, 0.3, 0.6), 2, False),  # the last one is the best
        ('accuracy', (0.5, 0.4, 0.3), 0, False),
        ('ema_loss', (0.5, 0.4, 0.3), 1, False),  # lower is better
        ('ema_loss', (0.3, 0.4, 0.5), 2, True),
    ],
)
def test_a_run_ends_after_enough_evaluations_without_a_better_one(metric, values, patience, ends):
    assert (stop_reason(lines(*values, metric=metric), metric, patience) is not None) == ends


def test_an_evaluation_that_was_written_twice_counts_once():
    twice = lines(0.5, 0.4) + lines(0.5, 0.4)[-1:]
    assert stop_reason(twice, 'accuracy', 2) is None
    assert 'no better than at step 10, 1 ' in str(stop_reason(twice, 'accuracy', 1))


@pytest.mark.parametrize('metric', ['acuracy', 'ema_loss', 'mean_average_precision', 'epoch'])
def test_an_unknown_metric_is_one_line_before_the_run_starts(metric, digits_config, tmp_path):
    digits_config.early_stopping.update({'patience': 1, 'metric': metric})
    with pytest.raises(InputError, match=f"metric: expected one of loss, accuracy, got '{metric}'"):
        train(digits_config, str(tmp_path))
    assert not (tmp_path / 'metrics.jsonl').exists()


@pytest.mark.parametrize('metric', ['loss', 'mean_average_precision', 'ema_mean_average_precision'])
def test_metrics_of_the_data_and_of_the_average_are_known(metric):
    check_metric(metric, multi_label=True, has_average=True)


def test_a_run_that_cannot_improve_ends_early_also_when_it_resumes(digits_config, tmp_path, capsys):
    digits_config.optim.learning_rate = 0.0
    digits_config.num_steps, digits_config.eval_every_steps = 20, 2
    digits_config.checkpoint_every_steps = 0
    digits_config.early_stopping.update({'patience': 2, 'metric': 'loss'})
    path = tmp_path / 'metrics.jsonl'

    def run():
        """The last line, and the steps and losses of all of the evaluations."""
        last = train(digits_config, str(tmp_path))
        assert 'step 6: the run ends early: loss is no better than at' in capsys.readouterr().out
        tested = [line for line in read_metrics(path) if line['split'] == 'test']
        return last, [(line['step'], line['loss']) for line in tested]

    ended = run()
    assert [step for step, _ in ended[1]] == [2, 4, 6] and ended[0]['step'] == 6
    before = path.read_text()
    assert run() == ended  # it is finished
    assert path.read_text() == before
    shutil.rmtree(tmp_path / 'checkpoints' / '6')
    assert run() == ended  # again from step 0
