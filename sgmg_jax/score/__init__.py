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

YTVOS_HELP = '''\
PRED is what a leaderboard takes, as a zip or as the folder that was zipped:

    Annotations/<video>/<expression id>/<frame name>.png    8-bit, one channel, 0 and 255

First it is checked for all that an evaluation server would choke on: missing videos, expressions and
frames, unexpected files, wrong sizes and modes, other values, damaged PNGs, a wrong top folder. Each kind of
problem is listed once, with its count, examples and how to mend it, and the exit status is 1.

GT is a built data set (the records of Ref-YouTube-VOS, or of anything in its layout), or the folder valid/ of the
ground truth that its authors published (meta_expressions_challenge.json, Annotations/<video>/<expression id>/).

Then every expression with ground truth is scored: J (region similarity), F (boundary accuracy) and their mean
J&F in percent; each expression's mean over its frames, then the mean over expressions; also for each tag where
the data set has tags. Recall is the share of frames above 0.5, decay the loss from the first quarter of a video
to its last. J_variance and J&F_variance, over an expression's frames, are a measure of temporal consistency of our
own (numbers in [0, 1], less is better).

examples:
    python -m sgmg_jax.score ytvos --gt=runs/demo/records \
        --pred=runs/demo/evaluation/ref_youtube_vos_valid/submission.zip
    python -m sgmg_jax.score ytvos --gt=data/tfds/ref_youtube_vos --pred=submission.zip --check-only
    python -m sgmg_jax.score ytvos --gt=refer_youtube_vos/valid --pred=submission.zip --json=scores.json
'''

DAVIS_HELP = '''\
PRED is a folder or a zip of index PNGs (0 background, else the object's number; palette or grey), of the four
annotators or of one, below any other folders:

    anno_0/<sequence>/<frame>.png .. anno_3/<sequence>/<frame>.png
    <sequence>/<frame>.png

GT is a copy of DAVIS-2017 with Annotations_unsupervised/480p/<sequence>/<frame>.png (or Annotations/, for the
semi-supervised task) and ImageSets/2017/val.txt, in GT itself, in GT/DAVIS or in GT/valid; or the built records.

The numbers are those of davis2017-evaluation: J, F and J&F in percent, means over all objects. Ref-DAVIS17 is scored
by the task "unsupervised": all frames, void left out, ids free (the best assignment counts). Published numbers
are the plain average over the four annotators. J_variance and J&F_variance, over an object's frames, are a
measure of temporal consistency of our own.

examples:
    python -m sgmg_jax.score davis --gt=refer_davis --pred=DVS_Annotations
    python -m sgmg_jax.score davis --gt=DAVIS --pred=results.zip --task=semi-supervised --processes=4
'''

COCO_HELP = '''\
PRED is COCO results, as JSON or as a zip with one .json in it:

    [{"image_id": .., "category_id": 1, "segmentation": {"size": [H, W], "counts": ".."}, "score": 0.9}, ..]

with one or more results for each image of the ground truth; an "image" is one sentence about one frame.

GT is ground truth in COCO's format (%(truth)s), or the built records. The image ids are %(ids)s.

mAP, AP50, AP75 and by area (S, M, L) are pycocotools'; P@K (IoU above K), overall IoU and mean IoU are of each
image's result with the best score; all in percent. The row "best" has mAP of these results alone.

examples:
    python -m sgmg_jax.score %(name)s --gt=%(gt)s --pred=results.json
    python -m sgmg_jax.score %(name)s --gt=data/tfds/%(records)s --pred=results.zip --split=%(split)s --json=scores.json
'''

COCO = {
    'a2d': dict(truth='a2d_sentences_test_annotations_in_coco_format.json', split='test', records='a2d_sentences',
                gt='a2d_sentences_test_annotations_in_coco_format.json', name='a2d',
                ids='v_<video>_f_<frame>_i_<instance>, the frame from 1 and without leading zeros'),
    'jhmdb': dict(truth='jhmdb_sentences_gt_annotations_in_coco_format.json', split='test', name='jhmdb',
                  records='jhmdb_sentences', gt='jhmdb_sentences_gt_annotations_in_coco_format.json',
                  ids='v_<video>_f_<frame>, the frame from 1 and without leading zeros'),
    'refcoco': dict(truth='instances_<name>_<split>.json with an image a sentence', split='val', name='refcoco',
                    records='refcoco', gt='instances_refcoco_val.json',
                    ids="the sentences' running numbers, integers")}


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
    if benchmark in COCO:
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
    rows = [('davis', 'Ref-DAVIS17: index PNGs', DAVIS_HELP, 'valid', davis.run),
            ('ytvos', 'Ref-YouTube-VOS: leaderboard zip', YTVOS_HELP, 'valid', ytvos.run),
            *((name, f'{title}: COCO results', COCO_HELP % COCO[name], COCO[name]['split'], coco.run)
              for name, title in (('a2d', 'A2D-Sentences'), ('jhmdb', 'JHMDB-Sentences'),
                                  ('refcoco', 'RefCOCO, RefCOCO+, RefCOCOg')))]
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
        command.add_argument('--processes', type=int, default=os.cpu_count(), metavar='N',
                             help='processes that score (default: all cores, here %(default)s)'
                             + (' (pycocotools runs in one)' if run is coco.run else ''))
        if name == 'davis':
            command.add_argument('--task', choices=TASKS, default=TASKS[0],
                                 help='default: %(default)s, what Ref-DAVIS17 is scored by')
    return parser


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
