"""Trains a model: `python train.py --help` shows how. The command itself is in sgmg_jax/training/__main__.py."""

import sys

from sgmg_jax.training.__main__ import main

if __name__ == '__main__':
    sys.exit(main())
