"""Writes a model as StableHLO, which runs on CPUs, GPUs and TPUs with JAX alone, without sgmg_jax.

    python -m sgmg_jax.export demo --out=exported
    python exported/run.py frames.npy masks.npz 'the red star'

The folder holds two programs (video: frames -> features; segment: features and sentences -> masks), the weights, the
tokenizer, export.json with all shapes, and run.py, an example. Before it appears, it is run on the CPU in a process of
its own and compared with the model.
"""

import argparse
from collections.abc import Sequence
import sys

from sgmg_jax import commands


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = commands.make_parser('python -m sgmg_jax.export', __doc__)
    parser.add_argument('model', help='a trained model of any kind, as for python -m sgmg_jax.predict --model')
    parser.add_argument('--tokenizer', metavar='DIR', help="folder of roberta-base, for the authors' weights")
    parser.add_argument('--out', required=True, help='folder to create; must not exist, or be empty')
    parser.add_argument(
        '--frames',
        type=commands.whole(1, 10_000),
        help='processed together (default and maximum: clip_frames of MODEL)',
    )
    parser.add_argument(
        '--size',
        type=commands.whole(1, 10_000),
        nargs=2,
        metavar=('H', 'W'),
        help='pixels of resized and padded frames (default: those of 720x1280, resized as for evaluation)',
    )
    parser.add_argument(
        '--sentences', type=commands.whole(1, 1000), default=1, help='processed together (default: %(default)s)'
    )
    parser.add_argument(
        '--tokens', type=commands.whole(1, 10_000), help='of a sentence (default and maximum: text_length of MODEL)'
    )
    platforms = ['cpu', 'cuda', 'tpu']
    parser.add_argument(
        '--platforms', nargs='+', choices=platforms, default=platforms, help='must include cpu (default: all three)'
    )
    return commands.exit_with(_export, parser, argv)


def _export(options: argparse.Namespace) -> None:
    import jax

    # No accelerator is needed, and one that this process holds would not be free for others.
    jax.config.update('jax_platforms', 'cpu')

    from sgmg_jax.export import programs
    from sgmg_jax.inference import models

    programs.check_out(options.out)
    predictor = models.open_model(options.model, options.tokenizer)
    sizes = programs.sizes_of(predictor, options.frames, options.size, options.sentences, options.tokens)
    errors = programs.write(predictor, options.out, sizes, options.platforms)
    for name, (error, largest) in errors.items():
        print(f'largest error of {name}: {error:.2g}, of values up to {largest:.3g}')
    print(f'written: {options.out}')


if __name__ == '__main__':
    sys.exit(main())
