"""What the commands say of themselves."""

import click
import processes
import pytest

from vit_jax.__main__ import COMMANDS, find_command, main
from vit_jax.model.arguments import argument_names
from vit_jax.model.vit import ViT
from vit_jax.train.config import list_options
from vit_jax.train.explain import explain_options


def test_every_command_and_every_option_is_explained(capsys):
    assert main(['--help']) == 0
    listed = capsys.readouterr().out
    for name in COMMANDS:
        assert f'\n  {name} ' in listed
        options = [x for x in find_command(name).params if isinstance(x, click.Option)]
        assert all(option.help and not option.help[0].islower() for option in options), name


@pytest.mark.parametrize(
    'command', ['predict', 'serve', 'evaluate', 'convert', 'export', 'summary']
)
def test_rare_options_are_shown_on_request(command, capsys):
    flags = [f'--{name.replace("_", "-")} ' for name in argument_names(ViT)]
    assert main([command, '--help']) == 0
    few = capsys.readouterr().out
    assert main([command, '--help-all']) == 0
    all_of_them = capsys.readouterr().out
    for flag in flags:
        assert flag not in few and flag in all_of_them
    assert '--step' in few and '--step' in all_of_them


def test_options_explains_every_option_of_a_config(capsys):
    explained = explain_options()
    assert [option.name for option in explained] != sorted(list_options())  # in their own order
    assert {option.name for option in explained} == set(list_options())
    words = [x.name for x in explain_options('warm-up', 'Epochs')]
    assert 'optim.warmup_epochs' in words and 'optim.warmup_steps' not in words
    assert main(['options', 'WARMUP']) == 0
    text = capsys.readouterr().out
    assert 'optim.warmup_steps = None\n    The warm-up, linear from 0; a cosine' in text
    assert 'optim.warmup_epochs' in text and 'batch_size =' not in text


def test_shells_complete_commands_options_and_recipes(monkeypatch):
    def complete(line):
        words = line.split(' ')
        monkeypatch.setenv('_VIT_JAX_COMPLETE', 'bash_complete')
        monkeypatch.setenv('COMP_WORDS', line)
        monkeypatch.setenv('COMP_CWORD', str(len(words) - 1))
        return processes.run('-m', 'vit_jax')[0].split()

    assert complete('vit_jax pre') == ['plain,predict', 'plain,prepare', 'plain,preview']
    assert 'plain,digits' in complete('vit_jax train di')
    assert 'plain,--report' in complete('vit_jax evaluate --re')
    for shell in ('bash', 'zsh', 'fish'):
        monkeypatch.setenv('_VIT_JAX_COMPLETE', f'{shell}_source')
        assert '_VIT_JAX_COMPLETE' in processes.run('-m', 'vit_jax')[0]
