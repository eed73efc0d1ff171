"""A2D-Sentences, JHMDB-Sentences and RefCOCO/+/g: COCO results against COCO ground truth or records."""
from collections.abc import Sequence
import json
import pathlib
import zipfile

import numpy as np
from pycocotools import mask as rle
import tqdm

from sgmg_jax.data import records
from sgmg_jax.evaluation import mean_ap, scoring
from sgmg_jax.inference import leaderboard
from sgmg_jax.score import common

HELP = '''\
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
BENCHMARKS = {
    'a2d': dict(title='A2D-Sentences', truth='a2d_sentences_test_annotations_in_coco_format.json',
                split='test', records='a2d_sentences', gt='a2d_sentences_test_annotations_in_coco_format.json',
                name='a2d', ids='v_<video>_f_<frame>_i_<instance>, the frame from 1 and without leading zeros'),
    'jhmdb': dict(title='JHMDB-Sentences', truth='jhmdb_sentences_gt_annotations_in_coco_format.json',
                  split='test', records='jhmdb_sentences', gt='jhmdb_sentences_gt_annotations_in_coco_format.json',
                  name='jhmdb', ids='v_<video>_f_<frame>, the frame from 1 and without leading zeros'),
    'refcoco': dict(title='RefCOCO, RefCOCO+, RefCOCOg', truth='instances_<name>_<split>.json with an image a sentence',
                    split='val', records='refcoco', gt='instances_refcoco_val.json',
                    name='refcoco', ids="the sentences' running numbers, integers")}


def truth_of_records(benchmark: str, split: Sequence[records.Record], progress: bool = False) -> dict:
    """COCO ground truth of built records, one image for each sentence and each frame in which it is annotated.

    Areas are counted in the masks. (The converted files of RefCOCO have those of the polygons: AP_S, AP_M and AP_L
    may differ a little.)

    Args:
        benchmark: 'a2d', 'jhmdb' or 'refcoco', for the image ids.
        progress: show a progress bar on stderr.
    """
    images, annotations = [], []
    for number in tqdm.trange(len(split), desc='reading', unit='video', disable=not progress):
        record = split[number]
        video = record.video
        for expression in video.expressions:
            for index in video.annotated_frames(expression.object_id):
                mask = record.decode_object(expression.object_id, index)
                segmentation = rle.encode(np.asfortranarray(mask, np.uint8))
                segmentation['counts'] = segmentation['counts'].decode()
                image = mean_ap.image_id(benchmark, video.name, video.frame_names[index], expression.id)
                images.append({'id': image, 'height': video.height, 'width': video.width, 'file_name': video.name})
                annotations.append({'id': len(images), 'image_id': image, 'category_id': 1, 'area': float(mask.sum()),
                                    'segmentation': segmentation, 'iscrowd': int('crowd' in expression.tags)})
    return {'categories': [{'id': 1, 'name': 'dummy_class'}], 'images': images, 'annotations': annotations}


def _read_results(path: pathlib.Path):
    """The JSON at `path`, or in the zip there."""
    if not path.exists():
        raise FileNotFoundError(f'{path}: there are no such results; give COCO results as .json or .zip')
    try:
        if not zipfile.is_zipfile(path):
            return json.loads(path.read_text())
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith('.json') and '__MACOSX' not in name]
            if len(names) != 1:
                raise ValueError(f'{len(names)} .json files in the zip, one is right')
            return json.loads(archive.read(names[0]))
    except leaderboard.UNREADABLE as error:
        raise common.WrongPredictions([leaderboard.Problem('unreadable results', 1, (f'{path}: {error}',),
                                                    'give one JSON file, or a zip with one in it')]) from error


def run(options) -> dict | None:
    gt = pathlib.Path(options.gt)
    truth = common.read_json(gt) if gt.is_file() else truth_of_records(
        options.benchmark, records.open_records(gt, options.split), progress=True)
    try:
        mean_ap.check_truth(truth)
    except ValueError as error:
        raise ValueError(f'{gt}: {error}') from error
    results = _checked_results(truth, options.pred)
    print(f'{options.pred}: complete and well-formed, {len(truth["images"]):,} images, {len(results):,} results.')
    if options.check_only:
        return None
    return mean_ap.evaluate(truth, results)


def score_submission(benchmark: str, path, split: Sequence[records.Record], progress: bool) -> dict:
    """See the package's."""
    truth = truth_of_records(benchmark, split, progress)
    mean_ap.check_truth(truth)
    return mean_ap.evaluate(truth, _checked_results(truth, path))


def _checked_results(truth: dict, path) -> list[dict]:
    results = _read_results(pathlib.Path(path))
    problems = common.problems_of(mean_ap.check_results(truth, results))
    if problems:
        raise common.WrongPredictions(problems)
    return results


def format_scores(summary: dict) -> str:
    """See the package's."""
    best = [*(key for key in summary if key.startswith('P@')), 'overall_IoU', 'mean_IoU', 'images', 'results']
    return '\n\n'.join([scoring.format_table({'all': summary, 'best': summary['best']}, mean_ap.STATISTICS),
                        scoring.format_table({'best': summary}, best)])
