"""Runs `python -m sgmg_jax.score`."""
import sys

from sgmg_jax import score

if __name__ == '__main__':
    sys.exit(score.main())
