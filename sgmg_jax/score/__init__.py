"""Scores the files of any system on Ref-DAVIS17, Ref-YouTube-VOS, A2D-Sentences, JHMDB-Sentences, RefCOCO/+/g.

    python -m sgmg_jax.score {davis,ytvos,a2d,jhmdb,refcoco} --gt=GROUND_TRUTH --pred=PREDICTIONS

The files are checked, and nothing is scored if one is wrong; a short table goes to stdout and all numbers, each
video's and each sentence's too, to a JSON file. Exit status: 0 all is well, 1 the predictions are wrong (the problems
are listed), 2 the command is.
"""
import argparse
from collections.abc import Sequence
import json
import os
import sys

from sgmg_jax import files
from sgmg_jax.data import records
from sgmg_jax.evaluation import scoring
from sgmg_jax.evaluation.davis import TASKS
from sgmg_jax.score import coco, common, davis, ytvos
from sgmg_jax.score.coco import truth_of_records

__all__ = 'format_scores', 'main', 'score_submission', 'truth_of_records', 'write_scores'


def score_submission(benchmark: str, path, split: Sequence[records.Record], progress: bool = True) -> dict:
    """Scores a submission against the ground truth of a split, in this process.

    Args:
        benchmark: 'davis', 'ytvos', 'a2d', 'jhmdb' or 'refcoco'.
        path: the folder, zip or JSON of predictions, see the command's help.
        split: the split's records, such as `records.open_records` gives. Expressions whose object the
          benchmark hides are passed over.
        progress: show a progress bar on stderr.

    Returns:
        what `scoring.summarise` ('ytvos'), `davis.summarise` or `mean_ap.evaluate` (the others) gives.

    Raises:
        FileNotFoundError: there is no such submission.
        ValueError: the predictions are wrong, or the split has no ground truth.
    """
    if benchmark in coco.BENCHMARKS:
        return coco.score_submission(benchmark, path, split, progress)
    return {'davis': davis, 'ytvos': ytvos}[benchmark].score_submission(path, split, progress)


def format_scores(summary: dict) -> str:
    """A table of what `score_submission` returns, for people."""
    if 'annotators' in summary:
        return davis.format_scores(summary)
    return coco.format_scores(summary) if 'mAP' in summary else scoring.format_summary(summary)


def write_scores(path, summary: dict):
    """Writes the summary as JSON; the file appears whole or not at all."""
    with files.replacing(path) as partial:
        partial.write_text(json.dumps(summary, indent=1, allow_nan=False) + '\n')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser('python -m sgmg_jax.score', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    benchmarks = parser.add_subparsers(dest='benchmark', required=True, metavar='BENCHMARK')
    rows = [('davis', 'Ref-DAVIS17: index PNGs', davis.HELP, 'valid', davis.run),
            ('ytvos', 'Ref-YouTube-VOS: leaderboard zip', ytvos.HELP, 'valid', ytvos.run),
            *((name, f'{about["title"]}: COCO results', coco.HELP % about, about['split'], coco.run)
              for name, about in coco.BENCHMARKS.items())]
    for name, title, epilog, split, run in rows:
        command = benchmarks.add_parser(name, help=title, description=f'Checks and scores {title}.', epilog=epilog,
                                        formatter_class=argparse.RawDescriptionHelpFormatter)
        command.set_defaults(run=run)
        command.add_argument('--gt', required=True, metavar='GT', help='the ground truth, see below')
        command.add_argument('--pred', required=True, metavar='PRED', help='the predictions, see below')
        command.add_argument('--json', default='scores.json', metavar='FILE',
                             help='where to write all numbers (default: %(default)s)')
        command.add_argument('--split', default=split, help='split of the ground truth (default: %(default)s)')
        command.add_argument('--check-only', action='store_true', help='check the files, score nothing')
        command.add_argument('--processes', type=_count, default=os.cpu_count(), metavar='N',
                             help='processes that score (default: all cores, here %(default)s)'
                             + (' (pycocotools runs in one)' if run is coco.run else ''))
        if name == 'davis':
            command.add_argument('--task', choices=TASKS, default=TASKS[0],
                                 help='default: %(default)s, what Ref-DAVIS17 is scored by')
    return parser


def _count(word: str) -> int:
    number = int(word)
    if number < 1:
        raise ValueError  # argparse says the rest.
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(argv)
    try:
        summary = options.run(options)
        if summary is not None:
            print(f'\n{format_scores(summary)}')  # first, lest it be lost where the file cannot be written
            write_scores(options.json, summary)
            print(f'\nwritten: {options.json}')
    except common.WrongPredictions as error:
        print(f'{error}\n\n{options.pred}: not fit for upload, and not scored.')
        return 1
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0
