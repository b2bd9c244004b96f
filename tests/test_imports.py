import subprocess
import sys

from conftest import ROOT


def test_imports_point_one_way():
    """The contracts under [tool.importlinter] in pyproject.toml."""
    program = 'from importlinter.cli import lint_imports_command; lint_imports_command()'
    command = [sys.executable, '-c', program, '--no-cache']
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_building_a_model_imports_no_orbax_tfds_or_tensorflow():
    program = """
import sys, vit_jax
vit_jax.ViT(image_size=8, patch_size=4, num_classes=2, dim=8, depth=1, heads=1, mlp_dim=8)
for module in 'orbax.checkpoint', 'tensorflow_datasets', 'tensorflow', 'torch', 'sklearn':
    assert module not in sys.modules, module
"""
    subprocess.run([sys.executable, '-c', program], cwd=ROOT, check=True)
