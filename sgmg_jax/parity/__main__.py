"""Compares the models with the authors' PyTorch releases, array by array, on golden cases. Does not need PyTorch.

    python -m sgmg_jax.parity tests/goldens tests/goldens/soc
    python -m sgmg_jax.parity tests/goldens/full_tiny_eval_ytvos_b2.npz

Prints every array's largest error and its tolerance. The exit status is 1 if any array differs.
"""

import argparse
from collections.abc import Sequence
import sys

from sgmg_jax import commands


def run(options: argparse.Namespace) -> int:
    from sgmg_jax.parity import compare

    return 0 if compare.run(options.paths) else 1


def main(argv: Sequence[str] | None = None) -> int:
    parser = commands.make_parser('python -m sgmg_jax.parity', __doc__)
    parser.add_argument('paths', nargs='+', help='golden cases: .npz files, or folders of them')
    return commands.exit_with(run, parser, argv)


if __name__ == '__main__':
    sys.exit(main())
