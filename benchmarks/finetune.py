"""How do ways of fine-tuning compare on one budget, and with training from scratch?

CIFAR-10, five classes each.

python benchmarks/finetune.py --data cifar10_jpeg.tar.xz [--seeds 0 1 2] [--pretrained RUN]

Pretrains a small ViT on airplane, automobile, bird, cat and deer. Then trains on dog, frog, horse,
ship and truck, from that run directory and from scratch, for the same number of steps and examples:
with configs/finetune.py, finetune_lora.py and finetune_head.py, and from scratch with AdamW. Test
accuracies are those of the last step. `vit_jax probe` fits a linear classifier to the features of
the pretrained model, one pass over the same pictures; its seed changes nothing. The data are
CIFAR-10's 32 x 32 pictures as train/CLASS/* and test/CLASS/*, in a folder or a tar file.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report import describe_machine, write_result

MODEL = {'dim': 96, 'depth': 6, 'heads': 3, 'dim_head': 32, 'mlp_dim': 192, 'pool': 'gap'}
BATCH_SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True, help='folder, or a tar file of one')
    parser.add_argument('--pretrain-steps', type=int, default=4000)
    parser.add_argument('--pretrained', type=Path, help='a run of so many steps to start from')
    parser.add_argument('--steps', type=int, default=400, help='of fine-tuning, and from scratch')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    output = ROOT / 'benchmarks' / 'results' / 'finetune.json'
    parser.add_argument('--output', type=Path, default=output)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = unpack(arguments.data, work)
        first, second = split_classes(data, work)
        model = [f'model.{name}={value}' for name, value in MODEL.items()]
        adamw = [*model, 'optim.learning_rate=1e-3']
        pretrained = arguments.pretrained or work / 'pretrained'
        options = [*adamw, 'optim.warmup_steps=200', f'num_steps={arguments.pretrain_steps}']
        if not arguments.pretrained:
            train('default', pretrained, first, options)
        accuracy = final_accuracy(pretrained)
        print(f'pretrained on the first five classes: {accuracy:.2%}', flush=True)
        names = 'fine-tuned', 'low rank', 'head only', 'from scratch'
        result: dict[str, Any] = {'pretrained': accuracy} | {name: [] for name in names}
        result['linear probe'], seconds = probe(pretrained, second)
        print(f'linear probe: {result["linear probe"]:.2%}, {seconds:.0f} s', flush=True)
        for seed in arguments.seeds:
            budget = [f'num_steps={arguments.steps}', f'seed={seed}', 'optim.warmup_steps=40']
            from_weights = [f'init.weights={pretrained}', *budget]
            for name, config, options in (
                ('fine-tuned', 'finetune', from_weights),
                ('low rank', 'finetune_lora', from_weights),
                ('head only', 'finetune_head', from_weights),
                ('from scratch', 'default', [*adamw, *budget]),
            ):
                accuracy, seconds = train(config, work / f'{config}-{seed}', second, options)
                result[name].append(accuracy)
                print(f'seed {seed}, {name}: {accuracy:.2%}, {seconds:.0f} s', flush=True)
    lines = [
        f'{name}: {statistics.mean(result[name]):.2%}, {spread(result[name])}' for name in names
    ]
    lines.append(f'linear probe: {result["linear probe"]:.2%}')
    margin = statistics.mean(result['fine-tuned']) - statistics.mean(result['from scratch'])
    lines.append(f'margin: {margin:.2%}')
    print('\n'.join(lines))
    result |= {
        'margin': margin,
        'pretrain_steps': arguments.pretrain_steps,
        'steps': arguments.steps,
        'batch_size': BATCH_SIZE,
        'machine': describe_machine(),
    }
    write_result(result, '\n'.join(f'- {line}' for line in lines) + '\n', arguments.output)


def unpack(data: Path, work: Path) -> Path:
    """The folder of a data set that is one, or a tar file of one."""
    if data.is_dir():
        return data
    with tarfile.open(data) as archive:
        archive.extractall(work / 'cifar10', filter='data')
    return work / 'cifar10'


def spread(values: list[float]) -> str:
    """The sample standard deviation, if there is more than one seed."""
    return f'± {statistics.stdev(values):.2%}' if len(values) > 1 else 'one seed'


def split_classes(data: Path, work: Path) -> tuple[Path, Path]:
    """Two data sets, made of symbolic links: the first and the second half of the classes."""
    classes = sorted(path.name for path in (data / 'train').iterdir())
    half = len(classes) // 2
    folders = work / 'first', work / 'second'
    for folder, names in zip(folders, (classes[:half], classes[half:]), strict=True):
        for split in ('train', 'test'):
            (folder / split).mkdir(parents=True)
            for name in names:
                (folder / split / name).symlink_to((data / split / name).absolute())
    return folders


def probe(run: Path, data: Path) -> tuple[float, float]:
    """Fits a linear classifier to the features of a run; returns as train does."""
    command = [sys.executable, '-m', 'vit_jax', 'probe', str(run), '--method=linear']
    start = time.perf_counter()
    answer = subprocess.run(
        [*command, f'--data=folder:{data}'], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    return json.loads(answer.stdout)['accuracy'], time.perf_counter() - start


def train(config: str, run: Path, data: Path, options: list[str]) -> tuple[float, float]:
    """Runs train.py; returns the final test accuracy and the seconds that it took."""
    command = [sys.executable, 'train.py', f'--config=configs/{config}.py', f'--workdir={run}']
    common = [
        f'data.source=folder:{data}',
        f'batch_size={BATCH_SIZE}',
        'log_every_steps=0',
        'eval_every_steps=0',
        'checkpoint_every_steps=0',
    ]
    start = time.perf_counter()
    flags = [f'--config.{option}' for option in (*common, *options)]
    subprocess.run([*command, *flags], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    return final_accuracy(run), seconds


def final_accuracy(run: Path) -> float:
    """Of the last evaluation."""
    last: dict[str, float] = json.loads((run / 'metrics.jsonl').read_text().splitlines()[-1])
    return last['accuracy']


if __name__ == '__main__':
    main()
