"""The machine that a benchmark runs on: its devices, speed, memory and subprocesses."""

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
    """JAX's devices, or the first `count` of them.

    Raises:
        ValueError: there are fewer, or none of the kind that JAX_PLATFORMS requires.
    """
    import jax

    from sgmg_jax import hosts

    hosts.initialize(False, None, None, None)
    found = jax.devices()
    if count is not None and count > len(found):
        raise ValueError(
            f'--devices={count}: must be at most {len(found)}, the number of {found[0].platform} devices here.'
        )
    return found[:count]


def describe(packages: Sequence[str] = PACKAGES) -> str:
    """One line: processor, cores, device, versions."""
    versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in packages)
    device = devices()[0]
    return (
        f'{_processor()}, {os.cpu_count()} cores; {device.platform} {device.device_kind}; '
        f'Python {platform.python_version()}, {versions}'
    )


def seconds(run: Callable[[], object], runs: int) -> list[float]:
    """Wall time of each of several runs of a function."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return times


def matmul_rate(dtype: str, size: int) -> float:
    """FLOP/s of a large matmul on one device: its peak in practice."""
    import jax
    import jax.numpy as jnp

    from sgmg_jax import compilation

    # Random numbers: a matmul of ones is faster, because it draws less power.
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = compilation.jit(jnp.matmul)
    jax.block_until_ready(product(x, x))
    return 2 * size**3 / statistics.median(seconds(lambda: jax.block_until_ready(product(x, x)), 5))


def peak_memory() -> int:
    """Peak memory in bytes, of the accelerator or, on a CPU, of this process."""
    device = devices()[0].memory_stats()
    return device['peak_bytes_in_use'] if device else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def disable_compilation_cache() -> None:
    """For measurements that include compilation, in time or peak memory, or need the names of operations: a cached
    program may have those of earlier code."""
    import jax

    jax.config.update('jax_enable_compilation_cache', False)


class OutOfMemory(ValueError):
    """The workload does not fit the memory."""


@contextlib.contextmanager
def catch_out_of_memory() -> Iterator[None]:
    """Raises OutOfMemory if the block runs out of memory, on the device or on the host."""
    import jax

    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        raise OutOfMemory(
            'this does not fit the memory of the device. Use fewer or smaller clips, sentences or frames.'
        ) from error


def output_lines(arguments: Sequence[str]) -> Iterator[str]:
    """Runs Python with these arguments and yields the lines that it prints; its stderr goes to ours.

    Raises:
        SystemExit: the process failed with an error message; has its exit status.
        ChildProcessError: a signal ended it.
    """
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # a pipe
        yield from process.stdout
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        hint = ' If nobody sent it, memory ran out: use a smaller batch.' * (name == 'SIGKILL')
        raise ChildProcessError(f'python {" ".join(arguments)}: was ended by {name}.{hint}')
    if process.returncode:
        sys.exit(process.returncode)


def _processor() -> str:
    info = pathlib.Path('/proc/cpuinfo')
    names = (
        [line.split(':')[1].strip() for line in info.read_text().splitlines() if line.startswith('model name')]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()
