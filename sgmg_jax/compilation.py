"""How programs are compiled, and where compiled programs are cached."""

from collections.abc import Callable
import contextvars
import functools
import os
import pathlib
import platform
from typing import Any
import zlib

from absl import logging
import jax

CACHE_LIMIT = 8 * 2**30  # bytes; beyond it the least recently used programs are evicted
_tracing_for_cpu: contextvars.ContextVar[bool] = contextvars.ContextVar('tracing_for_cpu')


def keep_programs() -> None:
    """Caches compiled programs in the user's cache folder, so that a restarted command does not compile again.

    JAX_COMPILATION_CACHE_DIR overrides the folder; set but empty, it turns the cache off.
    """
    if 'JAX_COMPILATION_CACHE_DIR' in os.environ:  # JAX reads it by itself
        return
    cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache')
    folder = cache / 'sgmg_jax' / f'programs-{_processor()}'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f'{folder} is not writable')
    except OSError as error:
        logging.info('compiled programs are not cached: %s', error)
        return
    jax.config.update('jax_compilation_cache_max_size', CACHE_LIMIT)
    jax.config.update('jax_compilation_cache_dir', os.fspath(folder))


def _processor() -> str:
    """Identifies the CPU's instruction set: machines that share a home folder may differ in it."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        return f'{zlib.crc32(next(line for line in lines if line.startswith(("flags", "Features"))).encode()):x}'
    except (OSError, StopIteration):
        return platform.machine()


@functools.cache
def _warn_of_slow_scatters() -> None:
    """jax-ml/jax#38806: these versions compile a float32 scatter-add, the gradient of sampling, to retry loops."""
    if jax.default_backend() == 'gpu' and jax.__version__ in ('0.10.2', '0.11.0'):
        logging.warning(
            'jax %s trains slowly on GPUs: its scatter-add retries instead of adding. Install jax 0.11.2 '
            'or newer, which needs Python 3.12 or newer.',
            jax.__version__,
        )


def jit(function: Callable, **options: Any) -> jax.stages.Wrapped:
    """`jax.jit` with full float32 precision, and on CPUs with the schedule that needs less memory.

    By default JAX multiplies float32 matrices in TF32 on a GPU and in bfloat16 on a TPU, with about three and two
    significant digits, so results would depend on the machine. bfloat16 products are unaffected. A precision set by
    the user (JAX_DEFAULT_MATMUL_PRECISION=tensorfloat32, for speed) is kept.

    XLA's default CPU schedule runs as much as it can in parallel: a training step on five frames of 360x640 then
    takes 17 GB instead of 12, and is slower for it.
    """

    @functools.wraps(function)
    def at_full_precision(*args):
        with jax.default_matmul_precision(jax.config.jax_default_matmul_precision or 'float32'):
            return function(*args)

    _warn_of_slow_scatters()
    if jax.default_backend() == 'cpu':
        options['compiler_options'] = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}
    return jax.jit(at_full_precision, **options)


def on_cpu() -> bool:
    """Whether what is being traced is for a CPU. There, the models compute some layers part by part, which takes less
    memory, and on a GPU or TPU would take more time."""
    return _tracing_for_cpu.get(jax.default_backend() == 'cpu')


def for_any_platform(function: Callable) -> Callable:
    """`function`, traced once for CPUs and once for other devices, whatever this machine has. A program that is
    compiled for one platform has only its part."""

    def traced(for_cpu):
        def call(*arguments):
            token = _tracing_for_cpu.set(for_cpu)
            try:
                return function(*arguments)
            finally:
                _tracing_for_cpu.reset(token)

        return call

    return lambda *arguments: jax.lax.platform_dependent(*arguments, cpu=traced(True), default=traced(False))
