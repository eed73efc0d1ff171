"""Segments the objects that sentences describe in a film.

    python -m sgmg_jax.predict film.mp4 "the dog on the left" "the red ball" --out=result --model=models/sgmg-b

VIDEO is a film (mp4, mov, webm, mkv, gif, ...), a folder of pictures, or a picture. --out gets

    overlay.mp4               the film with a contour per sentence, over a darker background (overlay.png of a picture)
    masks/<sentence>/*.png    0 and 255, as leaderboards have them; sentences are numbered from 0
    objects/*.png             one map per frame, 0 for none, k + 1 for sentence k, in the palette of DAVIS
    result.json               a score for each sentence and each of its frames, and the masks as COCO's run lengths

MODEL is a model folder, the --workdir of train.py, the authors' weights (with --tokenizer), owner/name on the Hugging
Face Hub, or 'demo': a small model that comes with the package and knows only the coloured shapes of sgmg_jax.synthetic.
"""

import argparse
from collections.abc import Sequence
import sys

from sgmg_jax import commands, files


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = commands.make_parser('python -m sgmg_jax.predict', __doc__)
    parser.add_argument('video', metavar='VIDEO', help='a film, a folder of pictures, or a picture')
    parser.add_argument('sentences', metavar='SENTENCE', nargs='+', help='what to segment, such as "the red ball"')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to write; must not exist')
    parser.add_argument('--model', default='demo', help='see above (default: %(default)s)')
    parser.add_argument('--tokenizer', metavar='DIR', help="folder of roberta-base, for the authors' weights")
    parser.add_argument(
        '--every', type=commands.whole(1, 10**6), default=1, help='use every so many frames (default: 1)'
    )
    parser.add_argument('--start', type=commands.number(0), default=0.0, help='seconds; begin there (default: 0)')
    parser.add_argument('--end', type=commands.number(0), default=float('inf'), help='seconds; end there')
    parser.add_argument('--max-side', type=commands.whole(16, 8192), help='pixels; larger frames are scaled down')
    parser.add_argument(
        '--threshold',
        type=commands.number(0, 1),
        default=0.0,
        help='a sentence whose score stays below it in a window of the film has empty masks there (default: 0)',
    )
    return commands.exit_with(predict, parser, argv)


def predict(options: argparse.Namespace) -> None:
    """The command, with its parsed options."""
    files.check_new(options.out)
    if options.start >= options.end:
        raise ValueError(f'--start={options.start:g}: must be before --end={options.end:g}.')
    commands.log_plainly()

    import tqdm

    from sgmg_jax import compilation, video
    from sgmg_jax.inference import film, models

    source = video.open_source(options.video)
    predictor = models.open_model(options.model, options.tokenizer)
    compilation.keep_programs()
    if options.model == 'demo':
        print('The demo model knows only coloured shapes. For other films give --model.', file=sys.stderr)
    with tqdm.tqdm(desc='compiling', unit='frame', dynamic_ncols=True) as bar:

        def report(done: int, expected: int | None) -> None:
            bar.total = expected
            bar.set_description('segmenting', refresh=False)
            bar.update(done - bar.n)

        result = film.segment_film(
            predictor,
            source,
            options.sentences,
            options.out,
            every=options.every,
            start=options.start,
            end=options.end,
            max_side=options.max_side,
            threshold=options.threshold,
            report=report,
        )
    for row in result['sentences']:
        shown = sum(mask is not None for mask in row['masks'])
        print(f'score {row["score"]:.2f}, in {shown} of {len(row["masks"])} frames: {files.one_line(row["text"])}')
    print(f'written: {options.out}')


if __name__ == '__main__':
    sys.exit(main())
