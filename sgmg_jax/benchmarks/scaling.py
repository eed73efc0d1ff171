"""A training step on 1, 2, 4, 8 devices, as many as there are, each with the same number of clips.

    python -m sgmg_jax.benchmarks.scaling
    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m sgmg_jax.benchmarks.scaling --height=160 --width=160

`of ideal` is clips a second against the number of devices times those of one: what is missing to 100 % is
communication, and waiting for the slowest. Virtual devices of a CPU, as in the second line, share its cores: they show
that it runs, and what is lost to the splitting itself (clips a second should stay as they are), no more.
"""
import argparse
import subprocess
import sys

from sgmg_jax.benchmarks import step

COUNT = 'import jax; print(jax.device_count())'


def main(argv=None):
    parser = argparse.ArgumentParser(prog='python -m sgmg_jax.benchmarks.scaling', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    options, arguments = step.parse(parser, argv)
    if len(options.batch) > 1:
        parser.error(f'--batch {" ".join(map(str, options.batch))}: give one number of clips a device')
    # Asked in a process of its own: one that holds an accelerator leaves no memory to the others.
    there = int(subprocess.run([sys.executable, '-c', COUNT], check=True, stdout=subprocess.PIPE).stdout)
    print(f'{step.describe(options)}, {options.batch[0]} clip(s) a device')
    alone = None
    for count in (1, 2, 4, 8):
        if count > there or count % options.fsdp:
            continue
        row, = step.in_a_process('train', [*arguments, f'--devices={count}'])
        if row is None:
            sys.exit('error: so many clips do not fit the memory of a device')
        if alone is None:
            alone = row['clips'] / count
            print(row['machine'])
            print(f'{"devices":>7}{"median":>11}{"clips/s":>9}{"frames/s":>10}{"of ideal":>10}{"memory":>12}')
        print(f'{count:>7}{row["median"]:>9.3f} s{row["clips"]:>9.3f}{row["frames"]:>10.2f}'
              f'{row["clips"] / count / alone:>10.1%}{row["peak"] / 2 ** 30:>8.2f} GiB')


if __name__ == '__main__':
    main()
