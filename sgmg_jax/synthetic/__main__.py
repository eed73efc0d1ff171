"""Runs `python -m sgmg_jax.synthetic`."""

import argparse
from collections.abc import Sequence
import sys

from sgmg_jax import commands, files
from sgmg_jax.synthetic.dataset import LAYOUTS, write_dataset
from sgmg_jax.synthetic.layout import KINDS

RATE = 4  # frames per second of a film: slow enough to follow


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, or 2 after an error."""
    parser = commands.make_parser(
        'python -m sgmg_jax.synthetic',
        'Writes a procedural data set of moving shapes and sentences about them, in the raw layout of Ref-YouTube-VOS '
        'or of MeViS; or, with --film, one clip as a film.',
        epilog='examples:\n  python -m sgmg_jax.synthetic --out=data/synthetic_raw --train=600 --valid=40\n'
        '  python -m sgmg_jax.synthetic --film=shapes.mp4 --seed=3',
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--out', help='folder to create; must not exist, or be empty')
    what.add_argument('--film', help='.mp4 to create with one clip; its sentences are printed')
    parser.add_argument('--train', type=int, default=600, help='training videos (default: %(default)s)')
    parser.add_argument(
        '--valid',
        type=int,
        default=40,
        help='validation videos; every second one has a combination of colour and shape '
        'that training never shows (default: %(default)s)',
    )
    parser.add_argument(
        '--layout',
        choices=tuple(LAYOUTS),
        default='ref_youtube_vos',
        help='of the data set; in mevis, sentences mean one object, several or none (default: %(default)s)',
    )
    parser.add_argument(
        '--kind',
        choices=tuple(KINDS),
        help='of all videos: whether their sentences need words for attributes, motion or relations (default: mixed); '
        'alike: all objects look alike, and only motion tells them apart',
    )
    parser.add_argument('--frames', type=int, default=8, help='frames per video (default: %(default)s)')
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        default=[128],
        metavar='PIXELS',
        help='side of a square frame, or height and width (default: 128)',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the random numbers (default: %(default)s)')
    return commands.exit_with(_write, parser, argv)


def _write(options: argparse.Namespace) -> None:
    if len(options.size) > 2:
        raise ValueError(f'--size has {len(options.size)} numbers: one side, or height and width.')
    size = (options.size[0], options.size[-1])
    if options.film:
        _write_film(options.film, options.seed, options.frames, size, options.kind)
    else:
        write_dataset(
            options.out,
            options.train,
            options.valid,
            options.seed,
            options.frames,
            size,
            layout=options.layout,
            kind=options.kind,
        )


def _write_film(path: str, seed: int, frames: int, size: tuple[int, int], kind: str | None) -> None:
    from sgmg_jax import video
    from sgmg_jax.synthetic.video import make_video

    files.check_new(path, ['.mp4'])
    clip = make_video(seed, frames, size, kind=kind)
    video.write(path, clip.frames, RATE)
    for expression in clip.expressions:
        print(expression.text)


if __name__ == '__main__':
    sys.exit(main())
