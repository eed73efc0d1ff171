"""Trains a model.

    python train.py --config=configs/ytvos.py --workdir=runs/ytvos

A run that was stopped, however, goes on with the same command. Any field of the config can be set:
--config.data.batch_size=4. Every config takes ':smoke', two small steps that show that all is in
place: --config=configs/ytvos.py:smoke

SIGTERM makes it save, and leave with exit status 143. All devices of this machine are used; on several machines, of
which each sees --workdir, the same command runs on each, with --distributed on a TPU pod slice, with
--coordinator=FIRST:1234 --process_count=2 --process_index=0 elsewhere, on the second 1; under Slurm with --distributed
once for each GPU.
"""
import signal
import sys

from absl import app, flags
from ml_collections import config_flags

from sgmg_jax import checkpoints, hosts
from sgmg_jax.training import loop

CONFIG = config_flags.DEFINE_config_file('config', None, 'Experiment, a file of configs/.', lock_config=True)
WORKDIR = flags.DEFINE_string('workdir', None, 'Where checkpoints and logs go; a run in there is resumed.')
STOPPED = 128 + signal.SIGTERM  # as a shell reports a process that SIGTERM ended
hosts.define_flags()
flags.mark_flags_as_required(['config', 'workdir'])


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f'unknown argument {argv[1]!r}')
    checkpoints.quiet()
    hosts.initialize()
    if not loop.train(CONFIG.value, WORKDIR.value):
        sys.exit(STOPPED)


if __name__ == '__main__':
    app.run(main)
