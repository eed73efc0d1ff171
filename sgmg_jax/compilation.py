"""How programs are compiled, and where they are kept."""
import functools
import os
import pathlib
import platform
import zlib

from absl import logging
import jax

KEPT = 8 * 2 ** 30  # bytes; those that were not used for the longest time go


def keep_programs() -> None:
    """Keeps compiled programs in the user's cache folder, so that the next start of a command does not compile again;
    in JAX_COMPILATION_CACHE_DIR where that is set, nowhere where it is set and empty."""
    folder = os.environ.get('JAX_COMPILATION_CACHE_DIR')
    if folder is None:
        cache = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
        folder = pathlib.Path(cache) / 'sgmg_jax' / f'programs-{_processor()}'
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(f'{folder} is not writable')
        except OSError as error:
            logging.info('compiled programs are not kept for the next start: %s', error)
            return
        jax.config.update('jax_compilation_cache_max_size', KEPT)
        jax.config.update('jax_compilation_cache_dir', os.fspath(folder))


def _processor():
    """Of its instructions: a home folder may be shared by machines that do not have the same."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        return f'{zlib.crc32(next(line for line in lines if line.startswith(("flags", "Features"))).encode()):x}'
    except (OSError, StopIteration):
        return platform.machine()


def jit(function, **options):
    """`jax.jit`, with float32 that is float32, and on a CPU with the schedule that needs less memory.

    By default JAX multiplies float32 matrices in TF32 on a GPU and in bfloat16 on a TPU, which is three and two
    digits; the models' numbers would then be another machine's. Products of bfloat16 are the same either way. A user
    who has set another precision (JAX_DEFAULT_MATMUL_PRECISION=tensorfloat32, for speed) gets that.

    XLA's default schedule for CPUs runs as much as it can side by side: a training step on five frames of 360x640 then
    holds 17 GB instead of 12, and is slower for touching them.
    """
    @functools.wraps(function)
    def at_full_precision(*args):
        with jax.default_matmul_precision(jax.config.jax_default_matmul_precision or 'float32'):
            return function(*args)

    if jax.default_backend() == 'cpu':
        options['compiler_options'] = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}
    return jax.jit(at_full_precision, **options)
