"""A training step on 1, 2, 4 and 8 devices (as far as available), with the same number of clips on each.

    python -m sgmg_jax.benchmarks.scaling
    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m sgmg_jax.benchmarks.scaling --height=160 --width=160

`of ideal` is the speed-up divided by the number of devices; the rest is communication, and waiting for the slowest
device. Virtual CPU devices, as in the second line, share the cores of the CPU: they only show that it runs, and what
sharding itself costs (clips/s should stay constant).
"""

import argparse
from collections.abc import Sequence
import functools
import sys

from sgmg_jax import commands
from sgmg_jax.benchmarks import machine, step

COUNT = (
    'import sys; from sgmg_jax import commands; from sgmg_jax.benchmarks import machine; '
    'sys.exit(commands.run(lambda: print(len(machine.devices({})))))'
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return commands.exit_with(functools.partial(_work, arguments), step.make_parser('scaling', __doc__), arguments)


def _work(arguments: Sequence[str], options: argparse.Namespace) -> None:
    batch = step.only_batch(options)
    step.check_sizes(options, options.model, batch)
    # Counted in a subprocess: a process that holds an accelerator leaves no memory for others.
    *_, available = map(int, machine.output_lines(['-c', COUNT.format(options.devices)]))
    counts = [count for count in (1, 2, 4, 8) if count <= available and count % options.storage_shards == 0]
    if not counts:
        raise ValueError(
            f'--storage_shards={options.storage_shards}: must divide 1, 2, 4 or 8 devices, of which '
            f'{available} are available.'
        )
    print(f'{step.describe(options)}, {batch} clip(s) per device')
    alone = None
    for count in counts:
        (row,) = step.measure_in_subprocess('train', [*arguments, f'--devices={count}'])
        if row is None:
            raise ValueError(f'--batch={batch}: these clips do not fit the memory of a device. Use fewer.')
        if alone is None:
            alone = row['clips'] / count
            print(row['machine'])
            print(f'{"devices":>7}{"median":>11}{"clips/s":>9}{"frames/s":>10}{"of ideal":>10}{"memory":>12}')
        print(
            f'{count:>7}{row["median"]:>9.3f} s{row["clips"]:>9.3f}{row["frames"]:>10.2f}'
            f'{row["clips"] / count / alone:>10.1%}{row["peak"] / 2**30:>8.2f} GiB'
        )


if __name__ == '__main__':
    sys.exit(main())
