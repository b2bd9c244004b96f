"""The wheel alone, outside the clone: every command, the recipes, a config of one's own."""

import subprocess
import sys
import zipfile

import processes
import pytest
from PIL import Image

MINE = """
import vit_jax


def get_config():
    config = vit_jax.default_config()
    config.num_steps = 4
    config.batch_size = 8
    config.data.source = 'folder:pictures'
    config.data.image_size = 8
    config.data.test_split = 'train'
    config.model.update(patch_size=4, dim=16, depth=1, heads=1, mlp_dim=16)
    config.optim.warmup_steps = 1
    return config
"""


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """The folder of a wheel's packages."""
    folder = tmp_path_factory.mktemp('wheel')
    build = [sys.executable, '-m', 'hatchling', 'build', '--target', 'wheel', '--directory', folder]
    subprocess.run(build, cwd=processes.ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob('*.whl')
    zipfile.ZipFile(wheel).extractall(folder / 'site')
    return folder / 'site'


@pytest.fixture
def vit_jax(installed, tmp_path, monkeypatch):
    """Runs `vit_jax ARGUMENTS` from the wheel in an empty folder; returns its output and errors."""
    monkeypatch.setenv('PYTHONPATH', str(installed))
    start = 'import sys; from vit_jax.__main__ import run_and_exit; sys.argv[0] = "vit_jax"; '

    def run(*arguments, **options):
        return processes.run(
            '-c', f'{start} run_and_exit()', *arguments, cwd=tmp_path, torch=True, **options
        )

    return run


def test_trains_a_config_of_ones_own(vit_jax, installed, tmp_path):
    output, _ = processes.run('-c', 'import vit_jax; print(vit_jax.__file__)', cwd=tmp_path)
    assert output.startswith(str(installed))
    for number in range(16):
        folder = tmp_path / 'pictures' / ('black' if number % 2 else 'white')
        folder.mkdir(parents=True, exist_ok=True)
        Image.new('L', (8, 8), 255 * (1 - number % 2)).save(folder / f'{number}.png')
    (tmp_path / 'mine.py').write_text(MINE)

    output, errors = vit_jax('train', 'mine.py')
    assert errors == ''
    assert output.splitlines()[-1].startswith('runs/mine: finished after 4 steps')


def test_knows_the_recipes_and_its_version(vit_jax):
    _, errors = vit_jax('train', 'digit', status=2)
    assert errors.count('\n') == 1 and errors.startswith("vit_jax: no config 'digit': ")
    recipes = ', '.join(sorted(x.stem for x in (processes.ROOT / 'configs').glob('*.py')))
    assert errors.endswith(f'one of {recipes}; did you mean digits?\n')
    output, _ = vit_jax('--version')
    assert output.startswith('vit_jax ') and ', jax ' in output and output.endswith('x cpu\n')


def test_has_the_page_of_the_server(installed):
    page = installed / 'vit_jax' / 'use' / 'serving' / 'page'
    of_clone = processes.ROOT / 'vit_jax' / 'use' / 'serving' / 'page'
    assert {x.name for x in page.iterdir()} == {x.name for x in of_clone.iterdir()}
    assert (page / 'index.html').read_bytes() == (of_clone / 'index.html').read_bytes()


def test_a_folder_of_the_same_name_does_not_hide_the_package(tmp_path):
    """Such as the clone's own, seen from its parent folder."""
    (tmp_path / 'vit_jax').mkdir()
    output, _ = processes.run('-c', 'import vit_jax; print(vit_jax.ViT)', cwd=tmp_path)
    assert output == "<class 'vit_jax.model.vit.ViT'>\n"
