"""Former name of `sgmg_jax.synthetic`; the next version removes it."""

import importlib
import sys

from sgmg_jax import commands


def __getattr__(name):
    return getattr(importlib.import_module('sgmg_jax.synthetic'), name)


if __name__ == '__main__':
    sys.exit(commands.run_moved('sgmg_jax.data.synthetic', 'sgmg_jax.synthetic'))
