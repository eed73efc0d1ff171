"""Runs `python -m sgmg_jax.score`: parses the arguments, then imports what scoring needs."""

import argparse
from collections.abc import Sequence
import os
import sys

from sgmg_jax import commands, files, score

TASKS = 'unsupervised', 'semi-supervised'  # evaluation.davis.TASKS, which takes a second to import
DAVIS = """\
PRED is a folder or a zip of index PNGs (0 background, otherwise the number of the object; palette or greyscale), for
all four annotators or one, at any depth:

    anno_0/<sequence>/<frame>.png .. anno_3/<sequence>/<frame>.png
    <sequence>/<frame>.png

GT is a copy of DAVIS-2017 with Annotations_unsupervised/480p/<sequence>/<frame>.png (or Annotations/, for the
semi-supervised task) and ImageSets/2017/val.txt, in GT itself, in GT/DAVIS or in GT/valid; or the built records.

The numbers are those of davis2017-evaluation: J, F and J&F in percent, means over all objects. Ref-DAVIS17 uses the
task "unsupervised": all frames, void ignored, ids free (objects are matched optimally). Published numbers are the plain
average over the four annotators. J_variance, F_variance and J&F_variance, over the frames of an object, are our own
measure of temporal consistency.

examples:
    python -m sgmg_jax.score davis --gt=refer_davis --pred=DVS_Annotations
    python -m sgmg_jax.score davis --gt=DAVIS --pred=results.zip --task=semi-supervised --processes=4
"""
YTVOS = """\
PRED is a leaderboard submission, as a zip or as the folder that was zipped:

    Annotations/<video>/<expression id>/<frame name>.png    8-bit, one channel, 0 and 255

It is first checked for everything that an evaluation server rejects: missing videos, expressions and frames,
unexpected files, wrong sizes and modes, other values, damaged PNGs, a wrong top folder. Each kind of problem is listed
once, with its count, examples and how to fix it, and the exit status is 1.

GT is a built data set (the records of Ref-YouTube-VOS, or of any data in its layout), or the folder valid/ of the
ground truth that its authors published (meta_expressions_challenge.json, Annotations/<video>/<expression id>/).

Then every expression with ground truth is scored: J (region similarity), F (boundary accuracy) and their mean J&F in
percent, first averaged over the frames of an expression, then over expressions; and per tag, if the data set has tags.
Recall is the fraction of frames above 0.5, decay the loss from the first quarter of a video to its last. J_variance,
F_variance and J&F_variance, over the frames of an expression, are our own measure of temporal consistency (in [0, 1],
lower is better). MCS@K is the share of expressions whose J is above K in every frame, tIoU the overlap of the frames in
which truth and prediction have the object, vIoU their J over these frames (0 where only one of them has it).

examples:
    python -m sgmg_jax.score ytvos --gt=runs/learn/records \\
        --pred=runs/learn/evaluation/ref_youtube_vos_valid/submission.zip
    python -m sgmg_jax.score ytvos --gt=data/tfds/ref_youtube_vos --pred=submission.zip --check-only
    python -m sgmg_jax.score ytvos --gt=refer_youtube_vos/valid --pred=submission.zip --json=scores.json
"""
MEVIS = """\
PRED is a leaderboard submission, as a zip or as the folder that was zipped; its top level is the folders of the videos:

    <video>/<expression id>/<frame name>.png    8-bit, one channel, 0 and 255, one for every frame

It is first checked for everything that an evaluation server rejects. A missing video would count 0 there, and a missing
frame breaks its scorer; here both are refused. Each kind of problem is listed once, with its count, examples and how to
fix it, and the exit status is 1.

GT is the built data set. Its split valid has no ground truth: the files are checked, not scored.

J, F and J&F in percent are those of DAVIS-2017, means over all frames of an expression, then over expressions; a frame
where both masks are empty scores 1. N-acc is the share of sentences without target whose masks are empty in every
frame, T-acc the share of the others whose masks are not, Final the mean of J&F, N-acc and T-acc. It is not published
whether J&F counts sentences without target: J&F and Final count them, J&F_with_target and Final_with_target do not. The
other columns are as for ytvos, also for sentences of no, one and several objects.

examples:
    python -m sgmg_jax.score mevis --gt=data/tfds/mevis --pred=submission.zip
    python -m sgmg_jax.score mevis --gt=data/tfds/mevis --pred=submission.zip --split=valid --check-only
"""
COCO = """\
PRED is COCO results, as JSON or as a zip with one .json in it:

    [{"image_id": .., "category_id": 1, "segmentation": {"size": [H, W], "counts": ".."}, "score": 0.9}, ..]

with at least one result per image of the ground truth; an "image" is one sentence about one frame. Other fields are
ignored.

GT is ground truth in COCO's format (%(truth)s), or the built records. The image ids are %(ids)s.

mAP, AP50, AP75 and AP by area (S, M, L) are computed by pycocotools. P@K (IoU above K), overall IoU and mean IoU use
only the highest-scoring result of each image, and so does the mAP of the row "best". All are in percent.

examples:
    python -m sgmg_jax.score %(name)s --gt=%(gt)s --pred=results.json
    python -m sgmg_jax.score %(name)s --gt=data/tfds/%(records)s --pred=results.zip --split=%(split)s --json=scores.json
"""
COCO_PROTOCOLS = {
    'a2d': dict(
        title='A2D-Sentences',
        truth='a2d_sentences_test_annotations_in_coco_format.json',
        split='test',
        records='a2d_sentences',
        gt='a2d_sentences_test_annotations_in_coco_format.json',
        ids='v_<video>_f_<frame>_i_<instance>, the frame from 1 and without leading zeros',
    ),
    'jhmdb': dict(
        title='JHMDB-Sentences',
        truth='jhmdb_sentences_gt_annotations_in_coco_format.json',
        split='test',
        records='jhmdb_sentences',
        gt='jhmdb_sentences_gt_annotations_in_coco_format.json',
        ids='v_<video>_f_<frame>, the frame from 1 and without leading zeros',
    ),
    'refcoco': dict(
        title='RefCOCO, RefCOCO+, RefCOCOg',
        truth='instances_<name>_<split>.json, one image per sentence',
        split='val',
        records='refcoco',
        gt='instances_refcoco_val.json',
        ids='the numbers of the sentences, integers',
    ),
}


def _parser() -> argparse.ArgumentParser:
    parser = commands.make_parser('python -m sgmg_jax.score', score.__doc__)
    protocols = parser.add_subparsers(dest='protocol', required=True, metavar='PROTOCOL')
    rows = [
        ('davis', 'Ref-DAVIS17: index PNGs', DAVIS, 'valid'),
        ('ytvos', 'Ref-YouTube-VOS: leaderboard zip', YTVOS, 'valid'),
        ('mevis', 'MeViS: leaderboard zip', MEVIS, 'valid_u'),
        *(
            (name, f'{about["title"]}: COCO results', COCO % (about | {'name': name}), about['split'])
            for name, about in COCO_PROTOCOLS.items()
        ),
    ]
    for name, title, epilog, split in rows:
        command = protocols.add_parser(
            name,
            help=title,
            description=f'Checks and scores {title}.',
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument('--gt', required=True, metavar='GT', help='the ground truth, see below')
        command.add_argument('--pred', required=True, metavar='PRED', help='the predictions, see below')
        command.add_argument(
            '--json', default='scores.json', metavar='FILE', help='where to write all numbers (default: %(default)s)'
        )
        command.add_argument('--split', default=split, help='split of the ground truth (default: %(default)s)')
        command.add_argument('--check-only', action='store_true', help='check the files without scoring them')
        command.add_argument(
            '--processes',
            type=_count,
            default=os.cpu_count(),
            metavar='N',
            help='number of processes (default: all cores, here %(default)s)'
            + ('; pycocotools uses one' if name in COCO_PROTOCOLS else ''),
        )
        if name == 'davis':
            command.add_argument(
                '--task', choices=TASKS, default=TASKS[0], help='default: %(default)s, the task of Ref-DAVIS17'
            )
        command.add_argument(
            '--debug', action='store_true', default=argparse.SUPPRESS, help='show the traceback of an error'
        )
    return parser


def _count(word: str) -> int:
    number = int(word)
    if number < 1:
        raise ValueError  # argparse adds the message.
    return number


def _work(options: argparse.Namespace) -> int:
    for given in (options.gt, options.pred):
        if os.path.exists(options.json) and os.path.exists(given) and os.path.samefile(options.json, given):
            raise ValueError(f'--json={options.json}: is an input and would be overwritten. Name another file.')
    from sgmg_jax.score import coco, common, davis, mevis, ytvos

    try:
        summary = {'davis': davis, 'ytvos': ytvos, 'mevis': mevis}.get(options.protocol, coco).run(options)
    except common.WrongPredictions as error:
        print(f'{error}\n\n{files.printable(options.pred)}: not fit for upload, and not scored.')
        return 1
    if summary is not None:
        print(f'\n{score.format_scores(summary)}', flush=True)  # before writing, which may fail
        score.write_scores(options.json, summary)
        print(f'\nwritten: {files.printable(options.json)}')
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return commands.exit_with(_work, _parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
