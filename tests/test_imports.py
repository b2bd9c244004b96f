import processes


def test_imports_point_one_way():
    """The contracts under [tool.importlinter] in pyproject.toml."""
    program = 'from importlinter.cli import lint_imports_command; lint_imports_command()'
    processes.run('-c', program, '--no-cache')


def test_building_a_model_imports_no_orbax_tfds_or_tensorflow():
    program = """
import sys, vit_jax
vit_jax.ViT(image_size=8, patch_size=4, num_classes=2, dim=8, depth=1, heads=1, mlp_dim=8)
for module in 'orbax.checkpoint', 'tensorflow_datasets', 'tensorflow', 'torch', 'sklearn':
    assert module not in sys.modules, module
"""
    processes.run('-c', program)
