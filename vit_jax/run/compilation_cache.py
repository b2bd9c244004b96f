"""Compiled programs, cached on disk between runs."""

import os
from pathlib import Path

import jax


def use_compilation_cache() -> None:
    """Makes jax cache compiled programs in `~/.cache/vit_jax` (XDG_CACHE_HOME/vit_jax if set).

    The user's settings take precedence: JAX_COMPILATION_CACHE_DIR,
    JAX_ENABLE_COMPILATION_CACHE=false, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS. The folder never
    shrinks by itself. Old programs are never used for new code: jax keys them by program, compiler
    and device.
    """
    home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    defaults = {
        'jax_compilation_cache_dir': str(home / 'vit_jax'),
        # Start-up compiles many small programs, which jax's default of one second would skip.
        'jax_persistent_cache_min_compile_time_secs': 0,
    }
    for name, value in defaults.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
