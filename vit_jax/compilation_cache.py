"""Compiled programs, kept on disk from one start to the next."""

import os
from pathlib import Path

import jax


def use_compilation_cache() -> None:
    """Has jax keep what it compiles in `~/.cache/vit_jax` (XDG_CACHE_HOME/vit_jax, where set).

    What the user has set stands: JAX_COMPILATION_CACHE_DIR, or JAX_ENABLE_COMPILATION_CACHE=false.
    Old programs are never used for new code: jax keys them by program, compiler and device.
    """
    if jax.config.values['jax_compilation_cache_dir'] is None:
        home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
        jax.config.update('jax_compilation_cache_dir', str(home / 'vit_jax'))
        # Many small programs make up a third of a start; jax's own default leaves them out.
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
