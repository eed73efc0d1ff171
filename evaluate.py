"""Evaluates a trained model: `python evaluate.py --help` shows how. The command itself is in
sgmg_jax/inference/__main__.py."""

import sys

from sgmg_jax.inference.__main__ import main

if __name__ == '__main__':
    sys.exit(main())
