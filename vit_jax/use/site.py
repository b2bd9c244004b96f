"""A trained model as a static web page, which runs it in the visitor's browser."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from vit_jax.data.preprocess import Preprocessing
from vit_jax.errors import InputError
from vit_jax.use.onnx import write_onnx
from vit_jax.weights.reading import Weights

PAGE = Path(__file__).parent / 'serving' / 'page'  # of the server
IN_BROWSER = Path(__file__).parent / 'browser'  # replaces its model.js
ONNXRUNTIME_WEB = 'onnxruntime-web@1.30.0'  # of npm
RUNTIME = ('ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm')  # 14 MB
MODEL = 'model.onnx'


def write_site(
    weights: Weights,
    folder: str | os.PathLike[str],
    preprocessing: Preprocessing,
    *,
    int8: bool = False,
    runtime: str | os.PathLike[str] | None = None,
) -> None:
    """Writes a folder for any static host: page, model and ONNX Runtime in WebAssembly.

    Args:
      weights, preprocessing, int8: see `vit_jax.use.onnx.write_onnx`.
      folder: new, empty, or an earlier site, which is replaced once the new one is whole.
      runtime: the folder `dist` of the npm package onnxruntime-web; None to get it by npm.

    Raises:
      InputError: if the folder holds something else or cannot be written, ONNX Runtime cannot be
        had, or the model cannot be converted.
    """
    path = Path(folder).absolute()
    if path.exists() and not (path.is_dir() and _is_ours(path)):
        raise InputError(f'{folder}: expected a new folder, or one that an earlier export wrote')
    if not path.parent.is_dir():
        raise InputError(f'{folder}: expected a new folder in one that exists')
    new, old = (path.with_name(f'{path.name}.{os.getpid()}.{end}') for end in ('new', 'old'))
    try:
        shutil.copytree(PAGE, new)
        shutil.copytree(IN_BROWSER, new, dirs_exist_ok=True)
        if runtime is None:
            _fetch_runtime(new)
        else:
            _copy_runtime(Path(runtime), new)
        write_onnx(weights, new / MODEL, preprocessing, int8=int8, attention=True)
        if path.exists():
            path.rename(old)
        new.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if old.exists() and not path.exists():
            old.rename(path)
        raise InputError(f'{folder}: cannot be written: {error.strerror}') from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _is_ours(path: Path) -> bool:
    return not any(path.iterdir()) or (path / f'{MODEL}.json').is_file()


def _copy_runtime(source: Path, folder: Path) -> None:
    for name in RUNTIME:
        if not (source / name).is_file():
            raise InputError(f'{source}: expected the folder dist of {ONNXRUNTIME_WEB}, no {name}')
        shutil.copyfile(source / name, folder / name)


def _fetch_runtime(folder: Path) -> None:
    """Takes ONNX Runtime from npm, which keeps what it downloaded."""
    npm = shutil.which('npm')
    advice = f'npm install {ONNXRUNTIME_WEB}, then --runtime node_modules/onnxruntime-web/dist'
    if npm is None:
        raise InputError(
            f'the page takes {ONNXRUNTIME_WEB}, by npm, which is missing; where npm is: {advice}'
        )
    command = [npm, 'pack', '--silent', '--ignore-scripts', '--prefer-offline', ONNXRUNTIME_WEB]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    packed = list(folder.glob('onnxruntime-web-*.tgz'))
    if process.returncode or not packed:
        reason = process.stderr.strip().split('\n')[0] or f'status {process.returncode}'
        raise InputError(f'npm pack {ONNXRUNTIME_WEB} failed: {reason}; or: {advice}')
    with tarfile.open(packed[0]) as archive:
        for name in RUNTIME:
            file = archive.extractfile(f'package/dist/{name}')
            assert file is not None
            with file, open(folder / name, 'wb') as copy:
                shutil.copyfileobj(file, copy)
    packed[0].unlink()
