"""What a benchmark ran on."""
import importlib.metadata
import os
import pathlib
import platform
import resource
import statistics
import time

import jax
import jax.numpy as jnp

from sgmg_jax import compilation

PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy')


def describe(packages=PACKAGES):
    """One line: processor, cores, device, versions."""
    versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in packages)
    device = jax.devices()[0]
    return (f'{_processor()}, {os.cpu_count()} cores; {device.platform} {device.device_kind}; '
            f'Python {platform.python_version()}, {versions}')


def seconds(run, runs):
    """Wall time of each of so many runs of a function without arguments."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return times


def matmul_rate(dtype, size=8192):
    """Operations a second of a large matrix product on one accelerator, what its peak comes to in practice."""
    # Random numbers: of ones the product is faster, for less current flows.
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = compilation.jit(jnp.matmul)
    jax.block_until_ready(product(x, x))
    return 2 * size ** 3 / statistics.median(seconds(lambda: jax.block_until_ready(product(x, x)), 5))


def peak_memory():
    """Bytes of the accelerator, or of this process on a CPU."""
    device = jax.devices()[0].memory_stats()
    return device['peak_bytes_in_use'] if device else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _processor():
    info = pathlib.Path('/proc/cpuinfo')
    names = [line.split(':')[1].strip() for line in info.read_text().splitlines()
             if line.startswith('model name')] if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()
