"""What a benchmark ran on."""
from collections.abc import Callable, Iterator, Sequence
import contextlib
import importlib.metadata
import os
import pathlib
import platform
import resource
import signal
import statistics
import subprocess
import sys
import time

PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy')


def devices(count: int | None = None) -> list:
    """JAX's devices, or only so many of them.

    Raises:
        ValueError: there are not so many, or none of the kind that JAX_PLATFORMS asks for.
    """
    import jax

    from sgmg_jax import hosts
    hosts.initialize(False, None, None, None)
    there = jax.devices()
    if count is not None and count > len(there):
        raise ValueError(f'--devices={count}: must be at most {len(there)}, the {there[0].platform} devices here.')
    return there[:count]


def cpu():
    """JAX's device for the CPU. Raises ValueError if JAX_PLATFORMS leaves it out."""
    import jax
    try:
        return jax.devices('cpu')[0]
    except RuntimeError as error:
        platforms = os.environ.get('JAX_PLATFORMS', '')
        raise ValueError(f'JAX_PLATFORMS={platforms}: names no CPU, whose backend counts operations. Set '
                         f'JAX_PLATFORMS={platforms},cpu.') from error


def describe(packages: Sequence[str] = PACKAGES) -> str:
    """One line: processor, cores, device, versions."""
    versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in packages)
    device = devices()[0]
    return (f'{_processor()}, {os.cpu_count()} cores; {device.platform} {device.device_kind}; '
            f'Python {platform.python_version()}, {versions}')


def seconds(run: Callable[[], object], runs: int) -> list[float]:
    """Wall time of each of so many runs of a function without arguments."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return times


def matmul_rate(dtype, size: int = 8192) -> float:
    """Operations a second of a large matrix product on one accelerator, what its peak comes to in practice."""
    import jax
    import jax.numpy as jnp

    from sgmg_jax import compilation
    # Random numbers: of ones the product is faster, for less current flows.
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = compilation.jit(jnp.matmul)
    jax.block_until_ready(product(x, x))
    return 2 * size ** 3 / statistics.median(seconds(lambda: jax.block_until_ready(product(x, x)), 5))


def peak_memory() -> int:
    """Bytes of the accelerator, or of this process on a CPU."""
    device = devices()[0].memory_stats()
    return device['peak_bytes_in_use'] if device else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def compile_anew() -> None:
    """Takes no program from a cache: where compiling is in the time or in the peak of memory that is measured, and
    where names of operations count, which in a cached program may be those of earlier code."""
    import jax
    jax.config.update('jax_enable_compilation_cache', False)


class TooLarge(ValueError):
    """What was asked for does not fit the memory."""


@contextlib.contextmanager
def fitting() -> Iterator[None]:
    """What lacks memory in the block, on the device or before it, raises TooLarge."""
    import jax
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        raise TooLarge('so much does not fit the memory of the device. Ask for fewer clips, sentences or frames, or '
                       'for smaller ones.') from error


def lines_of(command: Sequence[str]) -> Iterator[str]:
    """What a Python process of this package prints, line by line; what it says on stderr appears on this one's.

    Args:
        command: without the interpreter.

    Raises:
        SystemExit: it has failed, and said why; with its status.
        ChildProcessError: a signal has ended it.
    """
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        yield from process.stdout
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        hint = ' Where nobody sent that, memory ran out: ask for less at once.' * (name == 'SIGKILL')
        raise ChildProcessError(f'python {" ".join(command)}: {name} has ended it.{hint}')
    if process.returncode:
        sys.exit(process.returncode)


def _processor():
    info = pathlib.Path('/proc/cpuinfo')
    names = [line.split(':')[1].strip() for line in info.read_text().splitlines()
             if line.startswith('model name')] if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()
