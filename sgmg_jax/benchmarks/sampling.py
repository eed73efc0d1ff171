"""One layer of deformable sampling of the encoder, forward and backward, against a plain gather.

    python -m sgmg_jax.benchmarks.sampling
    python -m sgmg_jax.benchmarks.sampling --batch=8 --dtype=bfloat16        # on an accelerator

Every position of the levels of strides 8, 16, 32 and 64 samples 4 points in each level with 8 heads of 32 channels, as
in the released SgMg. `plain` gathers the four corners of all points at once, and its gradients are JAX's; `ours` is
ops/deformable_attention.py in its form for this platform. Both are timed in turn in one process; `backward` includes
no forward pass. Random values; points are near their query, as in a trained model.
"""

import argparse
from collections.abc import Callable, Sequence
import statistics
import sys
import time
import typing

from sgmg_jax import commands
from sgmg_jax.benchmarks import machine, step

if typing.TYPE_CHECKING:
    import jax

HEADS, POINTS, CHANNELS = 8, 4, 32
REACH = 4.0  # cells between a query and its points, standard deviation


def plain(
    values: 'jax.Array', sizes: Sequence[tuple[int, int]], locations: 'jax.Array', weights: 'jax.Array'
) -> 'jax.Array':
    """The definition, as one would write it first. Arguments as of ops.deformable_attention.sample."""
    import jax
    import jax.numpy as jnp

    from sgmg_jax.ops.deformable_attention import level_starts

    take = jax.vmap(jax.vmap(lambda rows, i: rows.at[i].get(mode='fill', fill_value=0), in_axes=(1, 1), out_axes=1))
    total = jnp.zeros(())
    for i, (start, (h, w)) in enumerate(zip(level_starts(sizes), sizes)):
        cells = values[:, start : start + h * w]
        x, y = locations[:, :, :, i, :, 0] * w - 0.5, locations[:, :, :, i, :, 1] * h - 0.5
        for row in (jnp.floor(y), jnp.floor(y) + 1):
            for column in (jnp.floor(x), jnp.floor(x) + 1):
                share = (1 - jnp.abs(x - column)) * (1 - jnp.abs(y - row)) * weights[:, :, :, i]
                inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
                corner = take(cells, jnp.where(inside, row * w + column, h * w).astype(jnp.int32))
                total = total + (corner * share[..., None].astype(values.dtype)).sum(3)
    return total.astype(values.dtype)


def prepare(options: argparse.Namespace) -> dict[str, dict[str, Callable[[], object]]]:
    """{form: {'forward', 'backward': function that runs it to completion}}."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from sgmg_jax import compilation
    from sgmg_jax.ops import deformable_attention

    frames, queries, sizes = shape(options)
    rng = np.random.default_rng(0)
    centres = np.concatenate(
        [np.stack(np.meshgrid((np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h), -1).reshape(-1, 2) for h, w in sizes]
    )
    cells = np.array(sizes, np.float32)[:, None, ::-1]  # w, h
    offsets = REACH * rng.standard_normal((frames, queries, HEADS, len(sizes), POINTS, 2), np.float32) / cells
    weights = rng.random(offsets.shape[:-1], np.float32)
    dtype = jnp.dtype(options.dtype)
    values = jnp.asarray(rng.standard_normal((frames, queries, HEADS, CHANNELS), np.float32), dtype)
    arguments = (
        values,
        jnp.asarray(offsets + centres[None, :, None, None, None].astype(np.float32)),
        jnp.asarray(weights / weights.sum((-1, -2), keepdims=True)),
    )
    cotangent = jnp.asarray(rng.standard_normal(values.shape, np.float32), dtype)

    def timed(sample: Callable) -> dict[str, Callable[[], object]]:
        def sampled(values, locations, weights):
            return sample(values, sizes, locations, weights)

        forward = compilation.jit(sampled)
        backward = compilation.jit(lambda *arguments: jax.vjp(sampled, *arguments[:-1])[1](arguments[-1]))
        return {
            'forward': lambda: jax.block_until_ready(forward(*arguments)),
            'backward': lambda: jax.block_until_ready(backward(*arguments, cotangent)),
        }

    return {'plain': timed(plain), 'ours': timed(deformable_attention.sample)}


def shape(options: argparse.Namespace) -> tuple[int, int, list[tuple[int, int]]]:
    """Frames, queries, and the size of each level."""
    strides = 8, 16, 32, 64
    sizes = [(-(-options.height // s), -(-options.width // s)) for s in strides]
    return options.batch * options.frames, sum(h * w for h, w in sizes), sizes


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = commands.make_parser('python -m sgmg_jax.benchmarks.sampling', __doc__, allow_abbrev=False)
    step.add_clip_size(parser)
    parser.add_argument(
        '--batch', type=commands.whole(1, 2**16), default=1, metavar='B', help='clips (default: %(default)s)'
    )
    step.add_runs(parser)
    return commands.exit_with(_work, parser, argv)


def _work(options: argparse.Namespace) -> None:
    print(machine.describe())
    print(f'{options.batch} clip(s) of {options.frames} frames of {options.height}x{options.width}, {options.dtype}')
    with machine.catch_out_of_memory():
        forms = prepare(options)
        cases = [(form, which) for which in ('forward', 'backward') for form in forms]
        seconds: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
        for run in range(options.runs + 1):  # the first one compiles
            for form, which in cases:
                started = time.perf_counter()
                forms[form][which]()
                if run:
                    seconds[form, which].append(time.perf_counter() - started)
    print(f'{"":10}{"plain":>12}{"ours":>12}{"plain / ours":>14}')
    for which in ('forward', 'backward'):
        before, after = (statistics.median(seconds[form, which]) for form in ('plain', 'ours'))
        print(f'{which:10}{1e3 * before:>9.2f} ms{1e3 * after:>9.2f} ms{before / after:>14.2f}')


if __name__ == '__main__':
    sys.exit(main())
