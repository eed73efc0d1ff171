"""Checks a leaderboard submission and scores it where there is ground truth.

    python -m sgmg_jax.score submission.zip --records=DIR --split=valid

Numbers are those of the DAVIS-2017 evaluation, in percent. Exit status: 0 all is well, 1 the submission is
wrong (the problems are listed), 2 the command is.
"""
import argparse
from collections.abc import Iterable, Sequence
import json
import sys

import numpy as np
import tqdm

from sgmg_jax import files
from sgmg_jax.data import records
from sgmg_jax.evaluation import scoring
from sgmg_jax.inference import leaderboard

HELP = '''\
SUBMISSION is what a leaderboard takes, as a zip or as the folder that was zipped:

    Annotations/<video>/<expression id>/<frame name>.png    8-bit, one channel, 0 and 255

First it is checked for all that an evaluation server would choke on: missing videos, expressions and
frames, unexpected files, wrong sizes and modes, other values, damaged PNGs, a wrong top folder. Each kind of
problem is listed once, with its count, examples and how to mend it, and the exit status is 1.

Then every expression with ground truth in the records is scored: J (region similarity), F (boundary
accuracy) and their mean J&F in percent; each expression's mean over its frames, then the mean over
expressions; also for each tag where the data set has tags. Recall is the share of frames above 0.5, decay
the loss from the first quarter of a video to its last.

examples:
    python -m sgmg_jax.score runs/demo/evaluation/submission.zip --records=runs/demo/records
    python -m sgmg_jax.score submission.zip --records=records/ref_youtube_vos --split=valid --check-only
'''


def expected_videos(videos: Iterable[records.Video]) -> list[leaderboard.ExpectedVideo]:
    """What a submission for these videos must hold, hidden expressions included."""
    return [leaderboard.ExpectedVideo(video.name, video.frame_names, (video.height, video.width),
                                      tuple(expression.id for expression in video.expressions))
            for video in videos]


def score_submission(path, split: Sequence[records.Record], progress: bool = True) -> dict:
    """Scores a submission against the ground truth of a split.

    Args:
        path: the zip, or the folder that holds Annotations/. It may hold more videos than the split.
        split: the split's records, such as `records.open_records` gives. Expressions whose object the
          benchmark hides are passed over.
        progress: show a progress bar on stderr.

    Returns:
        See `scoring.summarise`.

    Raises:
        FileNotFoundError: there is no such submission.
        ValueError: a mask is missing, unreadable or of another size; or the split has no ground truth. Only
          what is in the way of scoring is found: `leaderboard.check_submission` finds all faults.
    """
    scores = []
    with leaderboard.open_submission(path) as submission:
        for index in tqdm.trange(len(split), desc='scoring', unit='video', disable=not progress):
            record = split[index]
            known = [expression for expression in record.video.expressions if expression.object_id > 0]
            truth = record.decode_masks() if known else None
            if truth is None:
                continue
            for expression in known:
                prediction = _read_expression(submission, record.video, expression.id)
                score = scoring.score_expression(truth, expression.object_id, prediction)
                scores.append(score | {'video': record.video.name, 'expression': expression.id,
                                       'tags': expression.tags})
    return scoring.summarise(scores)


def _read_expression(submission, video: records.Video, expression_id: str) -> np.ndarray:
    """Masks of one expression, bool [T H W]."""
    masks = []
    for frame_name in video.frame_names:
        mask = leaderboard.read_mask(submission, video.name, expression_id, frame_name)
        if mask.shape != (video.height, video.width):
            name = leaderboard.mask_path(video.name, expression_id, frame_name)
            raise ValueError(f'{submission.path}: {name} is {mask.shape} (H, W), its frame '
                             f'{video.height, video.width}: write masks at the size of the frames')
        masks.append(mask)
    return np.stack(masks)


def write_scores(path, summary: dict):
    """Writes the summary as JSON; the file appears whole or not at all."""
    with files.replacing(path) as partial:
        partial.write_text(json.dumps(summary, indent=1, allow_nan=False) + '\n')


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        'python -m sgmg_jax.score', description=__doc__.splitlines()[0], epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('submission', metavar='SUBMISSION', help='zip, or folder that holds Annotations/')
    parser.add_argument('--records', required=True, metavar='DIR', help='where the data set was built')
    parser.add_argument('--split', default='valid', help='split of the records (default: %(default)s)')
    parser.add_argument('--out', default='scores.json', metavar='FILE',
                        help='where to write the scores (default: %(default)s)')
    parser.add_argument('--check-only', action='store_true', help='check the files, score nothing')
    options = parser.parse_args(argv)

    try:
        split = records.open_records(options.records, options.split)
        expected = expected_videos(split.videos)
        with leaderboard.open_submission(options.submission) as submission:
            problems = leaderboard.check_submission(submission, expected, progress=True)
        if problems:
            print(leaderboard.format_problems(problems))
            print(f'\n{options.submission}: not fit for upload, and not scored.')
            return 1
        masks = sum(len(video.frame_names) * len(video.expression_ids) for video in expected)
        print(f'{options.submission}: complete and well-formed, {len(expected):,} videos, {masks:,} masks.')
        if options.check_only:
            return 0
        if not any(e.object_id > 0 for video in split.videos for e in video.expressions):
            print(f'There is no ground truth in split {options.split!r}: checked, not scored.')
            return 0
        summary = score_submission(options.submission, split)
        write_scores(options.out, summary)
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print('\n' + scoring.format_summary(summary) + f'\n\nwritten: {options.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
