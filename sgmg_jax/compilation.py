"""How programs are compiled, and where compiled programs are cached."""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
import functools
import os
import pathlib
import platform as machine
from typing import Any
import zlib

from absl import logging
import jax

CACHE_LIMIT = 8 * 2**30  # bytes; beyond it the least recently used programs are evicted
PLATFORMS = 'cpu', 'gpu', 'tpu'  # that the models have forms of their own for
_traced_for: contextvars.ContextVar[str] = contextvars.ContextVar('traced_for')


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
        return machine.machine()


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
    if platform() == 'cpu':
        options['compiler_options'] = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}
    return jax.jit(at_full_precision, **options)


def platform() -> str:
    """The one of PLATFORMS that what is being traced is for: by default, that of this machine's devices. The models
    compute some layers in another form on each. Other devices have the form for GPUs."""
    backend = _traced_for.get(jax.default_backend())
    return backend if backend in PLATFORMS else 'gpu'


@contextlib.contextmanager
def tracing_for(name: str) -> Iterator[None]:
    """What the block traces is for this one of PLATFORMS, whatever this machine has."""
    token = _traced_for.set(name)
    try:
        yield
    finally:
        _traced_for.reset(token)


def for_any_platform(function: Callable) -> Callable:
    """`function`, traced once for each of PLATFORMS. A program that is compiled for one of them has only its part."""

    def traced(name):
        def call(*arguments):
            with tracing_for(name):
                return function(*arguments)

        return call

    return lambda *arguments: jax.lax.platform_dependent(
        *arguments, cpu=traced('cpu'), tpu=traced('tpu'), default=traced('gpu')
    )
