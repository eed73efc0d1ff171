"""Scores of A2D-Sentences, JHMDB-Sentences and RefCOCO/+/g: mAP, precision at K, overall and mean IoU.

Ground truth and results are COCO's: mAP is pycocotools' own, and the rest is taken, as in MTTR and those that follow
it, from the best result of each image alone. An "image" is one sentence about one frame, with one annotation.
"""
import collections
import contextlib
import io
import math
import numbers
import re

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

THRESHOLDS = 0.5, 0.6, 0.7, 0.8, 0.9
STATISTICS = 'mAP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L'  # in pycocotools' order
EPSILON = 1e-6
IMAGE_ID = re.compile(r'v_(?P<video>.+)_f_(?P<frame>\d+)(?:_i_(?P<sentence>.+))?')


def image_id(benchmark: str, video: str, frame_name: str, expression_id: str) -> str | int:
    """The id of the image of a sentence and a frame, as in the ground truth of 'a2d', 'jhmdb' or 'refcoco'."""
    if benchmark == 'refcoco':
        return int(expression_id)
    name = f'v_{video}_f_{int(frame_name)}'
    return f'{name}_i_{expression_id}' if benchmark == 'a2d' else name


def check_truth(truth: dict):
    """Raises ValueError, naming the field, if `truth` is not COCO ground truth with one annotation an image."""
    for field in ('images', 'annotations', 'categories'):
        if not isinstance(truth, dict) or not isinstance(truth.get(field), list) or not truth[field]:
            raise ValueError(f'no list {field!r} with something in it, so not COCO ground truth')
    for field, key, needed in (('images', 'id', {'id', 'height', 'width'}),
                               ('annotations', 'image_id', {'id', 'image_id', 'category_id', 'segmentation', 'area'})):
        for number, entry in enumerate(truth[field]):
            if needed - set(entry):
                raise ValueError(f'{field}[{number}] has no {sorted(needed - set(entry))[0]!r}')
        ids = collections.Counter(entry[key] for entry in truth[field])
        twice = [name for name, count in ids.items() if count > 1]
        if twice:
            raise ValueError(f'{field}: {key} {twice[0]!r} is there {ids[twice[0]]} times, once is right')
        if field == 'images':
            images = ids
    differing = images.keys() ^ ids.keys()
    if differing:
        raise ValueError(f'image {min(differing, key=str)!r} is not in both images and annotations')
    sizes = {image['id']: image['height'] * image['width'] for image in truth['images']}
    for number, entry in enumerate(truth['annotations']):
        segmentation = entry['segmentation']
        if isinstance(segmentation, dict) and not isinstance(segmentation.get('counts'), list) and not _is_whole(
                segmentation.get('counts'), sizes[entry['image_id']]):
            raise ValueError(f'annotations[{number}].segmentation is a damaged RLE, or not of its image\'s size')


def check_results(truth: dict, results) -> dict[tuple[str, str], list[str]]:
    """What is wrong with results: (kind, how to mend it) -> where; empty if they can be scored.

    Args:
        truth: COCO ground truth that passes `check_truth`.
        results: what should be a list of {'image_id', 'category_id', 'segmentation', 'score'}, the segmentation a
          compressed RLE. A damaged RLE would make pycocotools read foreign memory: only what passes may be scored.
    """
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        return {('not COCO results', 'write a list of {"image_id", "category_id", "segmentation", "score"}'):
                [type(results).__name__]}
    found = collections.defaultdict(list)
    sizes = {image['id']: (image['height'], image['width']) for image in truth['images']}
    categories = [category['id'] for category in truth['categories']]
    seen = set()
    for number, result in enumerate(results):
        image, score = result.get('image_id'), result.get('score')
        where = f'result {number}, image_id {image!r}'
        if not isinstance(image, str | int) or image not in sizes:
            found['unknown image_id', "use the ids of the ground truth's images (strings are not numbers), and the "
                  'right split'].append(where)
            continue
        seen.add(image)
        if result.get('category_id') not in categories:
            found['unknown category_id', f'write one of the ground truth, such as {min(categories)}: which one does '
                  'not matter, but pycocotools leaves out others'].append(f'{where}: {result.get("category_id")!r}')
        if not isinstance(score, numbers.Real) or not math.isfinite(score):
            found['no score', 'a score is a finite number'].append(f'{where}: {score!r}')
        segmentation = result.get('segmentation')
        if not isinstance(segmentation, dict) or {'size', 'counts'} - segmentation.keys():
            found['no RLE', 'a segmentation is {"size": [H, W], "counts": ..}, of pycocotools.mask.encode'
                  ].append(where)
        elif segmentation['size'] != list(sizes[image]):
            found['wrong size', 'resize the logits to the size of the frame before the threshold'].append(
                f'{where}: H x W is {segmentation["size"]}, of its image {list(sizes[image])}')
        elif not _is_whole(segmentation['counts'], math.prod(sizes[image])):
            found['damaged RLE', 'counts are the compressed string that pycocotools.mask.encode gives'].append(where)
    for image in sizes.keys() - seen:
        found['image without result', 'predict every sentence of every annotated frame; a mask may be empty'
              ].append(f'image_id {image!r}')
    return {key: sorted(where) if key[0] == 'image without result' else where for key, where in found.items()}


def _is_whole(counts, size: int) -> bool:
    """Whether the runs of a compressed RLE add up to `size` pixels."""
    if not isinstance(counts, str) or not counts or not counts.isascii():
        return False
    # 5 bits a character, the lowest first; bit 5 says that more follow, bit 4 of the last is the sign. From the fourth
    # run on, differences to the run before the last one.
    codes = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes < 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if codes.min() < 0 or codes.max() > 63 or codes[-1] >= 32 or (ends - starts).max() > 6:
        return False
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    runs = np.add.reduceat((codes & 31) << 5 * place, starts)
    runs -= np.where(codes[ends] & 16, np.int64(1) << 5 * (ends - starts + 1), 0)
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    return bool(runs.min() >= 0 and runs.max() <= size and runs.sum() == size)


def evaluate(truth: dict, results: list[dict]) -> dict:
    """Scores results; both passed their checks.

    Returns:
        In percent, None where nothing counts: 'mAP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L' of all results, and in
        'best' the same of the best result of each image alone; 'P@0.5' .. 'P@0.9', 'overall_IoU' (sum of
        intersections by sum of unions), 'mean_IoU'. 'images', 'results': counts. 'videos': {video: {'overall_IoU',
        'mean_IoU', 'scores': {sentence: {'mean_IoU', 'images': {image id: IoU}}}}}; where image ids do not tell
        video and sentence apart, an image file is a video and each id a sentence.

    Raises:
        ValueError: an image has no result.
    """
    of_image = collections.defaultdict(list)
    for result in results:
        of_image[result['image_id']].append(result)
    missing = [image['id'] for image in truth['images'] if image['id'] not in of_image]
    if missing:
        raise ValueError(f'image {missing[0]!r} has no result')
    # The sort is stable: of equal scores the last one is taken.
    best = {image: sorted(of_this, key=lambda result: result['score'])[-1] for image, of_this in of_image.items()}
    coco = _coco(truth)
    annotations = {annotation['image_id']: annotation for annotation in coco.dataset['annotations']}
    rows = [(image, *_overlap(coco.annToRLE(annotations[image['id']]), best[image['id']]['segmentation']))
            for image in truth['images']]
    ious = np.array([iou for *_, iou in rows])
    summary = _average_precision(coco, results)
    summary |= {f'P@{threshold}': 100 * float(np.mean(ious > threshold)) for threshold in THRESHOLDS}
    summary |= _ious(rows)
    summary['best'] = _average_precision(coco, list(best.values()))
    return summary | {'images': len(rows), 'results': len(results), 'videos': _videos(rows)}


def _coco(truth: dict) -> COCO:
    coco = COCO()
    # pycocotools writes into the annotations.
    coco.dataset = truth | {'annotations': [{'iscrowd': 0} | entry for entry in truth['annotations']]}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _average_precision(coco: COCO, results: list[dict]) -> dict:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes([dict(result) for result in results]), 'segm')
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # -1 is pycocotools' word for a range of areas without any object.
    return {name: None if value < 0 else 100 * float(value) for name, value in zip(STATISTICS, evaluation.stats)}


def _overlap(truth: dict, prediction: dict) -> tuple[int, int, float]:
    """Intersection and union in pixels, and IoU, of two RLEs."""
    intersection = int(rle.area(rle.merge([truth, prediction], intersect=True)))
    union = int(rle.area(truth)) + int(rle.area(prediction)) - intersection
    # In float32, as in the released code: it decides whether an IoU of just 0.6 is above 0.6.
    iou = (np.float32(intersection) + np.float32(EPSILON)) / (np.float32(union) + np.float32(EPSILON))
    return intersection, union, float(iou)


def _ious(rows: list[tuple]) -> dict:
    union = sum(row[2] for row in rows)
    return {'overall_IoU': 100 * sum(row[1] for row in rows) / union if union else None,
            'mean_IoU': 100 * float(np.mean([row[3] for row in rows]))}


def _videos(rows: list[tuple]) -> dict:
    videos = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        image = row[0]
        named = IMAGE_ID.fullmatch(str(image['id']))
        video = named['video'] if named else str(image.get('file_name', image['id']))
        videos[video][(named['sentence'] or '0') if named else str(image['id'])].append(row)
    return {video: _ious([row for of_sentence in sentences.values() for row in of_sentence]) | {
                'scores': {sentence: {'mean_IoU': _ious(of_sentence)['mean_IoU'],
                                      'images': {str(row[0]['id']): 100 * row[3] for row in of_sentence}}
                           for sentence, of_sentence in sentences.items()}}
            for video, sentences in sorted(videos.items())}
