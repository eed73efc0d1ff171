"""A training step on 1, 2, 4, 8 devices, as many as there are, each with the same number of clips.

    python -m sgmg_jax.benchmarks.scaling
    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m sgmg_jax.benchmarks.scaling --height=160 --width=160

`of ideal` is clips a second against the number of devices times those of one: what is missing to 100 % is
communication, and waiting for the slowest. Virtual devices of a CPU, as in the second line, share its cores: they show
that it runs, and what is lost to the splitting itself (clips a second should stay as they are), no more.
"""
import argparse
from collections.abc import Sequence
import functools
import sys

from sgmg_jax import commands
from sgmg_jax.benchmarks import machine, step

COUNT = ('import sys; from sgmg_jax import commands; from sgmg_jax.benchmarks import machine; '
         'sys.exit(commands.run(lambda: print(len(machine.devices({})))))')


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return commands.exit_with(functools.partial(_work, arguments), step.make_parser('scaling', __doc__), arguments)


def _work(arguments: Sequence[str], options: argparse.Namespace) -> None:
    batch = step.only_batch(options)
    step.check_sizes(options, options.model, batch)
    # Asked in a process of its own: one that holds an accelerator leaves no memory to the others.
    *_, there = map(int, machine.lines_of(['-c', COUNT.format(options.devices)]))
    counts = [count for count in (1, 2, 4, 8) if count <= there and count % options.fsdp == 0]
    if not counts:
        raise ValueError(f'--fsdp={options.fsdp}: must divide 1, 2, 4 or 8 devices, of which {there} are here to be '
                         'measured on.')
    print(f'{step.describe(options)}, {batch} clip(s) a device')
    alone = None
    for count in counts:
        row, = step.in_a_process('train', [*arguments, f'--devices={count}'])
        if row is None:
            raise ValueError(f'--batch={batch}: so many clips do not fit the memory of a device.')
        if alone is None:
            alone = row['clips'] / count
            print(row['machine'])
            print(f'{"devices":>7}{"median":>11}{"clips/s":>9}{"frames/s":>10}{"of ideal":>10}{"memory":>12}')
        print(f'{count:>7}{row["median"]:>9.3f} s{row["clips"]:>9.3f}{row["frames"]:>10.2f}'
              f'{row["clips"] / count / alone:>10.1%}{row["peak"] / 2 ** 30:>8.2f} GiB')


if __name__ == '__main__':
    sys.exit(main())
