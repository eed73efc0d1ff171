"""Trains a model.

    python train.py --config=configs/ytvos.py --workdir=runs/ytvos

A run that was stopped, however, goes on with the same command. Any field of the config can be set:
--config.data.batch_size=4. Every config takes ':smoke', two small steps that show that all is in
place: --config=configs/ytvos.py:smoke

Ctrl-C and SIGTERM make it save and leave, with exit status 130 and 143; a second Ctrl-C ends it at once. All devices of
this machine are used; on several machines, of which each sees --workdir, the same command runs on each, with
--distributed on a TPU pod slice, with --coordinator=FIRST:1234 --process_count=2 --process_index=0 elsewhere, on the
second 1; under Slurm with --distributed once for each GPU.
"""
import sys

from sgmg_jax import commands


def train(values):
    """Returns the exit status: 0, or 128 and the number of the signal that stopped it."""
    from sgmg_jax import hosts
    from sgmg_jax.training import loop
    hosts.initialize(values.distributed, values.coordinator, values.process_count, values.process_index)
    stopped_by = loop.train(values.config, values.workdir)
    return 128 + stopped_by if stopped_by else 0


if __name__ == '__main__':
    sys.exit(commands.run_experiment(train, __doc__, 'Where checkpoints and logs go; a run in there is resumed.'))
