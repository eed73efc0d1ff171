"""Trains a model.

    python train.py --config=configs/ytvos.py --workdir=runs/ytvos
    sgmg-jax train --config=ytvos --workdir=runs/ytvos         # the same, outside a checkout

Re-run the same command to resume an interrupted run. Any field of the config can be set on the command line:
--config.data.batch_size=4. Every config has a mode ':smoke', two small steps that check that everything is in place:
--config=configs/ytvos.py:smoke

Ctrl-C and SIGTERM save a checkpoint and exit with status 130 and 143; a second Ctrl-C exits at once. Training uses all
devices of this machine. To use several machines, which must all see --workdir, run the same command on each: on a TPU
pod slice with --distributed; under Slurm with --distributed and one task per GPU; elsewhere with
--coordinator=FIRST:1234 --process_count=2 and --process_index=0 on the first, 1 on the second.
"""

from collections.abc import Sequence
import sys

from absl import flags

from sgmg_jax import commands


def train(values: flags.FlagValues) -> int:
    """Returns the exit status: 0, or 128 plus the number of the signal that stopped training."""
    from sgmg_jax import hosts
    from sgmg_jax.training import loop

    hosts.initialize(values.distributed, values.coordinator, values.process_count, values.process_index)
    stopped_by = loop.train(values.config, values.workdir)
    return 128 + stopped_by if stopped_by else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return commands.run_experiment(
        train,
        __doc__,
        'Folder for checkpoints and logs; a run in it is resumed.',
        argv=None if argv is None else ['train', *argv],
    )


if __name__ == '__main__':
    sys.exit(main())
