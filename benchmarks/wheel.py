"""Tries the wheel alone: a fresh virtual environment, an empty folder, a new user's commands.

python benchmarks/wheel.py    # 6 minutes on two cores, most of it training and installation

It builds the wheel, installs it from PyPI's packages, and runs each command of the README, a config
and a program of the user's own, and the tutorial. It ends at the first command that fails.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

CONFIG = """
import vit_jax


def get_config():
    config = vit_jax.load_config('digits', {'num_steps': 40})
    config.model.depth = 2
    return config
"""

PROGRAM = """
import vit_jax

config = vit_jax.default_config()
config.num_steps, config.batch_size = 10, 8
config.data.source, config.data.image_size = 'folder:pictures', 8
config.model.update(patch_size=4, dim=16, depth=1, heads=1, mlp_dim=16)
print(vit_jax.train(config, 'runs/program'))
print(vit_jax.Predictor('runs/program').top_k(['pictures/black/0.png'], 1))
"""

PICTURES = """
from pathlib import Path
from PIL import Image

for name, value in (('black', 0), ('white', 255)):
    folder = Path('pictures') / name
    folder.mkdir(parents=True)
    for number in range(20):
        Image.new('L', (9, 9), value).save(folder / f'{number}.png')
(folder / 'broken.png').write_text('no picture')
"""

# The first word is a program of the environment.
COMMANDS = (
    'vit_jax --version',
    'vit_jax train digits',
    'python pictures.py',
    'vit_jax predict runs/digits pictures --top-k 1 --on-error skip',
    'vit_jax evaluate runs/digits --report report',
    'vit_jax train mine.py',
    'vit_jax plot runs/digits runs/mine -o curves.png',
    'vit_jax convert runs/digits digits.safetensors --to seed',
    'vit_jax summary runs/digits --batch-size 128',
    'vit_jax options warmup',
    'vit_jax preview digits -o preview.png',
    'rm pictures/white/broken.png',
    'python program.py',
    'jupyter execute tutorial.ipynb',
)
MADE = (
    'runs/digits/metrics.jsonl',
    'runs/mine/metrics.jsonl',
    'runs/program/metrics.jsonl',
    'runs/pictures/metrics.jsonl',
    'report/report.md',
    'report/confusion.png',
    'report/predictions.csv',
    'curves.png',
    'preview.png',
    'digits.safetensors',
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment, empty = Path(folder) / 'environment', Path(folder) / 'empty'
        empty.mkdir()
        (empty / 'mine.py').write_text(CONFIG)
        (empty / 'program.py').write_text(PROGRAM)
        (empty / 'pictures.py').write_text(PICTURES)
        shutil.copy(ROOT / 'docs' / 'tutorial.ipynb', empty)
        variables = {name: x for name, x in os.environ.items() if name != 'PYTHONPATH'}
        variables |= {
            'PATH': f'{environment / "bin"}:{os.environ["PATH"]}',
            'XDG_CACHE_HOME': folder,  # of compiled programs
            'TFDS_DATA_DIR': f'{folder}/data',
        }

        def run(*command: str) -> None:
            begun = time.perf_counter()
            done = subprocess.run(
                command, cwd=empty, env=variables, text=True, stdout=-1, stderr=subprocess.STDOUT
            )
            print(f'{time.perf_counter() - begun:6.1f} s  {" ".join(command)}', flush=True)
            for line in done.stdout.splitlines()[-3:]:
                print(f'          {line[:100]}')
            if done.returncode:
                sys.exit(f'{" ".join(command)}: exit status {done.returncode}\n{done.stdout}')

        build = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', folder, str(ROOT)]
        subprocess.run(build, check=True)
        (wheel,) = Path(folder).glob('*.whl')
        run(sys.executable, '-m', 'venv', str(environment))
        install = str(environment / 'bin' / 'pip'), 'install', '-q', '--no-compile'
        run(*install, str(wheel))
        run(*install, 'nbclient', 'ipykernel')  # of a user who opens the tutorial
        for command in COMMANDS:
            run(*command.split())
        missing = [name for name in MADE if not (empty / name).is_file()]
        sys.exit(f'missing: {", ".join(missing)}' if missing else 0)


if __name__ == '__main__':
    main()
