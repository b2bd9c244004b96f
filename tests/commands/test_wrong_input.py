"""Wrong command lines and configs: one line that names what was meant, and exit status 2."""

import pytest

from vit_jax.__main__ import main

COMMAND_LINES = [
    ('', "No such command ''. See vit_jax --help."),
    ('--vers', "No such option '--vers'. Did you mean '--version'?"),
    ('trian digits', "No such command 'trian'. Did you mean 'train'?"),
    ('predct runs/digits a.png', "Did you mean 'predict'?"),
    (
        'train',
        'Expected one config, cifar10, cifar100, cifar10_1h, default, deit3_b16, digits, '
        'fashion_mnist, finetune, finetune_head, finetune_lora, imagenet_b16_augreg, '
        'imagenet_s16, photographs or a file',
    ),
    ('train digits extra', 'got digits and extra. See vit_jax train --help.'),
    ('train digit', "no config 'digit': expected a file or a recipe, one of cifar10, cifar100"),
    ('train configs/digit.py', 'did you mean digits?'),
    ('train --config', "Option '--config' requires an argument."),
    ('train --config.seed=1', 'got none'),
    ('train digits --workdri=x', "No such option '--workdri'. Did you mean '--workdir'?"),
    ('train digits --workdir', "Option '--workdir' requires an argument."),
    ('train digits --batch_size=3', "'--config.batch_size'"),
    ('train digits -x', "No such option '-x'."),
    ('train digits --config.learning_rate=0.1', 'did you mean optim.learning_rate?'),
    ('train digits --config.optm.b1=0.9', 'no such option: optm.b1; did you mean optim.b1?'),
    ('train digits --config.epochs=3', 'did you mean num_epochs?'),
    ('train digits --config.image_size=3', 'did you mean data.image_size?'),
    ('train digits --config.optim.image_size=3', 'did you mean data.image_size?'),
    ('train digits --config.zzz=3', 'no such option: zzz; `vit_jax options` lists them all'),
    ('train digits --config.=3', 'no such option: ;'),
    ('train digits --config.optim=3', 'optim is a section: expected one of its options'),
    ('train digits --config.optim.name.x=3', 'did you mean optim.name?'),
    ('train digits --config.seed', "seed: expected a whole number, got 'True'"),
    ('train digits --config.batch_size=many', "batch_size: expected a whole number, got 'many'"),
    ('train digits --config.batch_size 1.5', "batch_size: expected a whole number, got '1.5'"),
    ('train digits --config.batch_size=inf', "batch_size: expected a whole number, got 'inf'"),
    ('train digits --config.optim.b1=high', "optim.b1: expected a number, got 'high'"),
    ('train digits --config.augment.horizontal_flip=maybe', "expected True or False, got 'maybe'"),
    ('train digits --config.data.image_size=big', 'data.image_size: expected a number or a pair'),
    ('train digits --config.num_steps=None --config.num_epochs=None', 'num_epochs: expected a va'),
    ('train digits --config.data.source=digits', "data.source: expected 'tfds:NAME'"),
    ('train digits --config.data.source=tfds:mnsit', 'did you mean tfds:mnist?'),
    ('train digits --config.model.variant=S16', "expected a variant such as 'B/16'"),
    ('predict', "Missing argument 'RUN|WEIGHTS'. See vit_jax predict --help."),
    ('predict runs/none a.png', 'runs/none: no such file or run directory'),
    ('evaluate .', '.: expected a run directory with description.json, or a Hugging Face folder'),
    ('evaluate runs/none --on-error ignore', "'ignore' is not one of 'raise', 'skip'"),
    ('plot runs/none -o a.png', 'runs/none: expected a run directory'),
    ('plot runs/none', "Missing option '-o' / '--output'."),
    ('train digits --workdir', "Option '--workdir' requires an argument. See vit_jax train --help"),
    ('convert a', "Missing argument 'DST'."),
    ('convert a b', "Missing option '--to'. Choose from: google, timm, huggingface, seed."),
    ('convert a b --to onnx', "'onnx' is not one of 'google', 'timm', 'huggingface', 'seed'"),
    ('predict', "Missing argument 'RUN|WEIGHTS'"),
    ('explain', "No such command 'explain'"),
    (
        'summary S/16 --image-size large',
        "'--image-size': expected a number or HEIGHTxWIDTH, got 'large'",
    ),
    ('evaluate a --max-pixels 0', '0 is not in the range 1<=x<='),
    ('summary S/16 --batch-size 99999999999999999999', 'is not in the range 1<=x<='),
    ('summary Z/99', 'Z/99: no such run or weight file; or a variant, a size out of Ti, S,'),
    ('summary S/16 --dim -3', 'expected dim a whole number from 1'),
    ('summary S/16 --pool best', "'best' is not one of 'cls', 'mean', 'gap', 'cls_gap', 'map'"),
    ('summary S/16 --class-tokn', "Did you mean one of: '--class-token', '--no-class-token'?"),
    ('options learnin_rate', 'did you mean optim.learning_rate?'),
    ('train digits --config.optim.lr=1', 'did you mean optim.learning_rate?'),
    ('prepare mnist', "expected 'tfds:NAME'"),
    ('prepare folder:nowhere', 'folder:nowhere: no such folder'),
    ('preview digits -o a.png --config.augment.policy=all', 'augment.policy: expected one of none'),
]

# What a config of one's own does to the default one, and the line of the error; None for none.
CONFIGS = [
    ('config.num_step = 4', 4, 'no such option: num_step; did you mean num_steps?'),
    ('config.learning_rate = 4', 4, 'did you mean optim.learning_rate?'),
    ('config.optm.name = "sgd"', 4, 'no such option: optm; did you mean optim?'),
    ('config.optim.warmup = 3', 4, 'did you mean optim.warmup_steps?'),
    ('config.model.image_size = 3', 4, 'did you mean data.image_size?'),
    ('config["epochs"] = 3', 4, 'did you mean num_epochs?'),
    ('config.update(lr=1)', 4, 'did you mean optim.learning_rate?'),
    ('config.data.update({"scource": "folder:a"})', 4, 'did you mean data.source?'),
    ('config.update_from_flattened_dict({"optim.lr": 1})', 4, 'did you mean optim.learning_rate?'),
    ('print(config.optim.momentum)', 4, 'no such option: momentum'),
    ('config.batch_size = "64"', 4, 'batch_size: expected int, got str 64'),
    ('config.batch_size = 64.0', 4, 'batch_size: expected int, got float 64.0'),
    ('config.num_steps = 1e3', 4, 'num_steps: expected int, got float 1000.0'),
    ('config.optim.name = 3', 4, 'name: expected str, got int 3'),
    ('config.optim = 3', 4, 'expected ConfigDict, got int 3'),
    ('config.augment.horizontal_flip = "no"', 4, 'horizontal_flip: expected bool, got str no'),
    ('config.batch_size = None', None, 'batch_size: expected a value, such as 128, got None'),
    ('config.batch_size = 0', None, 'batch_size: expected a number in [1, 2147483648), got 0'),
    ('config.optim.b1 = 1.0', None, 'optim.b1: expected a number in [0, 1), got 1.0'),
    ('config.data.source = "pets"', None, "data.source: expected 'tfds:NAME'"),
    ('config.data.source = "folder:pets"', None, 'folder:pets: no such folder'),
    ('config.data.image_size = "big"', None, "got 'big'"),
    ('config.augment.policy = "best"', None, 'augment.policy: expected one of none'),
    ('config.parallel.mode = "pjit"', None, "'jit' or 'pmap'"),
    ('config.wandb_project = 3', 4, 'wandb_project: expected str, got int 3'),
    ('config.unlock(); del config.optim.b1', None, 'optim.b1: missing'),
    ('config.unlock(); del config.parallel', None, 'parallel.data: missing'),
    ('config.unlock(); config.lr = 1', None, 'no such option: lr'),
    ('config.unlock(); config.seed = "a"', 4, 'seed: expected int, got str a'),
    ('return 1 / 0', 4, 'ZeroDivisionError: division by zero'),
    ('return {}["a"]', 4, 'KeyError: a'),
    ('return 3', None, 'expected get_config() to return a ConfigDict, got 3'),
    ('return', None, 'expected get_config() to return a ConfigDict, got None'),
    ('return vit_jax.load_config("digitz")', None, "no config 'digitz'"),
    ('return vit_jax.load_config("digits", {"sed": 1})', None, 'did you mean seed?'),
    ('raise SystemExit', 4, 'SystemExit'),
    ('import nothing_there', 4, "ModuleNotFoundError: No module named 'nothing_there'"),
    ('assert config.batch_size > 999', 4, 'AssertionError'),
    ('assert config.batch_size > 999, "two\\nlines"', 4, 'AssertionError: two lines'),
    ('open("nowhere")', 4, 'FileNotFoundError'),
]

FILES = [
    ('def get_config(:', 'line 1: SyntaxError'),
    ('import nothing_there', "line 1: ModuleNotFoundError: No module named 'nothing_there'"),
    ('x = "\xff"', 'line 1: SyntaxError'),
    ('x = 1', 'expected a function get_config()'),
    ('', 'expected a function get_config()'),
    ('\0', 'SyntaxError'),
    ('def get_config(variant): return variant', 'TypeError: get_config() missing 1 required'),
    (
        'from ml_collections import ConfigDict as get_config',
        'missing; expected a config made by vit_jax',
    ),
]


def fails_in_one_line(arguments, capsys, *messages):
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert all(message in errors for message in messages), errors
    assert errors.count('\n') == 1 and errors.startswith('vit_jax: ')
    assert output == ''


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.glob('runs/*'))


@pytest.mark.parametrize('line, message', COMMAND_LINES)
def test_command_line(line, message, capsys):
    fails_in_one_line(line.split(' '), capsys, message)


@pytest.mark.parametrize('body, line, message', CONFIGS)
def test_config(body, line, message, capsys, tmp_path):
    path = tmp_path / 'mine.py'
    lines = ['import vit_jax', 'def get_config():', ' config = vit_jax.default_config()']
    path.write_text('\n'.join([*lines, f' {body}', ' return config']))
    where = f'mine.py, line {line}: ' if line else ''
    fails_in_one_line(['train', 'mine.py'], capsys, where, message)


@pytest.mark.parametrize('content, message', FILES)
def test_config_file(content, message, capsys, tmp_path):
    (tmp_path / 'mine.py').write_bytes(content.encode('latin-1'))
    fails_in_one_line(['train', 'mine.py'], capsys, message)
