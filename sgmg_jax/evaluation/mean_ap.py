"""Scores of A2D-Sentences, JHMDB-Sentences and RefCOCO/+/g: mAP, precision at K, overall and mean IoU.

Ground truth and results are in COCO's format. pycocotools computes mAP. As in MTTR and its successors, the other scores
use only the best result of each image. An "image" is one sentence about one frame, with one annotation.
"""

import collections
from collections.abc import Mapping, Sequence
import contextlib
import io
import math
import re
import reprlib
import sys
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sgmg_jax import files
from sgmg_jax.evaluation import segmentations

THRESHOLDS = 0.5, 0.6, 0.7, 0.8, 0.9
STATISTICS = 'mAP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L'  # in pycocotools' order
EPSILON = 1e-6
AREAS = (0, 32**2), (32**2, 96**2), (96**2, math.inf)  # pixels of small, medium and large objects
LONGEST_ID = 500  # characters; NumPy pads every id to the longest
LONGEST_RUNS = 2**22  # characters of compressed runs, or numbers of uncompressed ones
IMAGE_ID = re.compile(r'v_(?P<video>.+)_f_(?P<frame>\d+)(?:_i_(?P<sentence>.+))?')


def image_id(protocol: str, video: str, frame_name: str, expression_id: str) -> str | int:
    """The image id of a sentence and a frame, as in the ground truth of 'a2d', 'jhmdb' or 'refcoco'.

    Raises:
        ValueError: the name of the frame, or for 'refcoco' of the expression, is not a whole number.
    """
    number = expression_id if protocol == 'refcoco' else frame_name
    if not (number.isdecimal() and len(number) < 16):
        what = 'expression' if protocol == 'refcoco' else 'frame'
        raise ValueError(
            f'video {video}: the name of {what} {number!r:.40} must be a whole number for {protocol}. Set '
            'config.evaluation.protocol to the protocol of the data set.'
        )
    if protocol == 'refcoco':
        return int(expression_id)
    name = f'v_{video}_f_{int(frame_name)}'
    return f'{name}_i_{expression_id}' if protocol == 'a2d' else name


def check_truth(truth: Any) -> None:
    """Raises ValueError, naming the field, if `truth` is not COCO ground truth with one annotation per image.

    pycocotools checks none of this. It never matches an object with the id 0, drops one with a duplicate id or without
    a category, and ignores one with an area of more than 10 ** 10 pixels.
    """
    for field in ('images', 'annotations', 'categories'):
        if not isinstance(truth, dict) or not isinstance(truth.get(field), list) or not truth[field]:
            hint = '; results are a list: are ground truth and predictions swapped?' * isinstance(truth, list)
            raise ValueError(f'{field!r} must be a list that is not empty, so this is not COCO ground truth{hint}')
        needed = {
            'images': ('id', 'height', 'width'),
            'categories': ('id',),
            'annotations': ('id', 'image_id', 'category_id', 'segmentation', 'area'),
        }[field]
        for number, entry in enumerate(truth[field]):
            if not isinstance(entry, dict):
                raise ValueError(f'{field}[{number}] must be an object with {", ".join(needed)}, is {_shown(entry)}')
            for key in needed:
                if key not in entry:
                    raise ValueError(f'{field}[{number}] has no {key!r}')
    for number, image in enumerate(truth['images']):
        _check(
            _is_image_id(image['id']),
            image['id'],
            f'images[{number}].id',
            f'a printable string of at most {LONGEST_ID} characters, or a whole number',
        )
        segmentations.check_size(image['height'], image['width'], f'images[{number}]')
        _check(
            isinstance(image.get('file_name', ''), str),
            image.get('file_name'),
            f'images[{number}].file_name',
            'a string',
        )
    if len({type(image['id']) for image in truth['images']}) > 1:
        raise ValueError("images: some 'id' are strings and some are numbers; they must be one or the other")
    for number, category in enumerate(truth['categories']):
        _check(_is_number(category['id'], 0), category['id'], f'categories[{number}].id', 'a whole number')
    for number, entry in enumerate(truth['annotations']):
        _check(_is_number(entry['id'], 1), entry['id'], f'annotations[{number}].id', 'a whole number from 1')
        _check(
            _is_image_id(entry['image_id']),
            entry['image_id'],
            f'annotations[{number}].image_id',
            "one of the images' ids",
        )
    images = _once(truth, 'images', 'id')
    categories = _once(truth, 'categories', 'id')
    differing = images.keys() ^ _once(truth, 'annotations', 'image_id').keys()
    _once(truth, 'annotations', 'id')
    if differing:
        raise ValueError(f'image {min(differing, key=str)!r} must be in both images and annotations')
    for number, entry in enumerate(truth['annotations']):
        where, image = f'annotations[{number}]', images[entry['image_id']]
        category, crowd = entry['category_id'], entry.get('iscrowd', 0)
        _check(
            _is_number(category, 0) and category in categories,
            category,
            f'{where}.category_id',
            f'one of the categories, such as {next(iter(categories))}',
        )
        _check(_is_number(crowd, 0) and crowd < 2, crowd, f'{where}.iscrowd', '0 or 1')
        ignored = entry.get('ignore', crowd)
        _check(
            _is_number(ignored, 0) and ignored in (0, crowd),
            ignored,
            f'{where}.ignore',
            '0 or equal to "iscrowd", which pycocotools uses instead',
        )
        _check_segmentation(entry['segmentation'], image, where)
        _check_area(entry, image, where)


def _once(truth: Mapping[str, list[dict]], field: str, key: str) -> dict[Any, dict]:
    """The entries of a list by a key, which must be unique."""
    entries = {entry[key]: entry for entry in truth[field]}
    if len(entries) < len(truth[field]):
        name, count = collections.Counter(entry[key] for entry in truth[field]).most_common(1)[0]
        raise ValueError(f'{field}: {key} {name!r} occurs {count} times, must be unique')
    return entries


def _check(right: bool, value: object, where: str, must: str) -> None:
    if not right:
        raise ValueError(f'{where} must be {must}, is {_shown(value)}')


def _shown(value: object) -> str:
    return files.one_line(reprlib.repr(value), 100)


def _is_number(value: object, least: int) -> bool:
    """Whether it is a whole number that NumPy and floats hold exactly; True and 1.0 are not."""
    return type(value) is int and least <= value < 2**53


def _is_image_id(value: object) -> bool:
    return _is_number(value, 0) or isinstance(value, str) and 0 < len(value) <= LONGEST_ID and value.isprintable()


def _check_segmentation(segmentation: object, image: Mapping[str, Any], where: str) -> None:
    counts = segmentation.get('counts') if isinstance(segmentation, dict) else None
    if isinstance(counts, str | list) and len(counts) > LONGEST_RUNS:
        raise ValueError(
            f'{where} has runs of {len(counts):,} characters or numbers, must have at most {LONGEST_RUNS:,}'
        )
    segmentations.check_segmentation(
        segmentation, image['height'], image['width'], f'{where} has a damaged segmentation'
    )
    if isinstance(segmentation, list) and not segmentations.enclosing(segmentation):
        raise ValueError(
            f'{where} needs a polygon of at least three points to segment anything, has {_shown(segmentation)}'
        )


def _check_area(annotation: Mapping[str, Any], image: Mapping[str, Any], where: str) -> None:
    """The area decides whether an object is small, medium or large, or ignored."""
    area, pixels = annotation['area'], image['height'] * image['width']
    # The area of polygons may differ from that of the pixels drawn.
    _check(
        type(area) in (int, float) and 0 <= area <= pixels + 1,
        area,
        f'{where}.area',
        f'a number of pixels, at most the {pixels} of its image',
    )
    if isinstance(annotation['segmentation'], dict) and not annotation.get('iscrowd'):
        covered = int(rle.area(_compressed(annotation['segmentation'], image)))
        if any((least <= area <= most) != (least <= covered <= most) for least, most in AREAS):
            raise ValueError(f'{where}.area is {area}, though its segmentation covers {covered} pixels')


def check_results(truth: Mapping[str, Any], results: object) -> dict[tuple[str, str], list[str]]:
    """The problems of results: (kind, how to fix it) -> where; empty if they can be scored.

    Args:
        truth: COCO ground truth that passes `check_truth`.
        results: should be a list of {'image_id', 'category_id', 'segmentation', 'score'}, with the segmentation a
            compressed RLE; other fields are ignored. Score only results without problems: a damaged RLE makes
            pycocotools read out of bounds.
    """
    others = (
        [f'entry {number}: {_shown(result)}' for number, result in enumerate(results) if not isinstance(result, dict)]
        if isinstance(results, list)
        else [_shown(results)]
    )
    if others or not isinstance(results, list):
        hint = '; this looks like ground truth: are the two swapped?' * isinstance(results, dict)
        return {
            (
                'not COCO results',
                f'write a list of {{"image_id", "category_id", "segmentation", "score"}}{hint}',
            ): others
        }
    found: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    sizes = {image['id']: [image['height'], image['width']] for image in truth['images']}
    categories = {category['id'] for category in truth['categories']}
    seen, counts = set(), collections.Counter[tuple]()
    for number, result in enumerate(results):
        image, score, category = (result.get(key) for key in ('image_id', 'score', 'category_id'))
        where = f'result {number}, image_id {_shown(image)}'
        if not _is_image_id(image) or image not in sizes:
            found[
                'unknown image_id',
                'use the image ids of the ground truth (strings are not numbers), and the right split',
            ].append(where)
            continue
        seen.add(image)
        if not _is_number(category, 0) or category not in categories:
            found[
                'unknown category_id',
                f'write any category of the ground truth, such as {min(categories)}: pycocotools drops all others',
            ].append(f'{where}: {_shown(category)}')
        scored = type(score) in (int, float) and abs(score) <= sys.float_info.max
        if not scored:
            found['no score', 'a score is a finite number'].append(f'{where}: {_shown(score)}')
        segmentation = result.get('segmentation')
        if not isinstance(segmentation, dict) or {'size', 'counts'} - segmentation.keys():
            found[
                'no RLE', 'a segmentation is {"size": [H, W], "counts": ..}, as pycocotools.mask.encode returns it'
            ].append(where)
            continue
        size, runs = segmentation['size'], segmentation['counts']
        if size != sizes[image] or {type(side) for side in size} != {int}:
            found['wrong size', 'resize the logits to the size of the frame before thresholding'].append(
                f'{where}: H x W is {_shown(size)}, that of its image {sizes[image]}'
            )
        elif not isinstance(runs, str) or len(runs) > LONGEST_RUNS or not segmentations.is_whole(runs, *size):
            found['damaged RLE', 'counts are the compressed string that pycocotools.mask.encode returns'].append(where)
        elif scored:
            counts[image, score, runs] += 1
    if counts and min(counts.values()) > 1 and not found:
        found['everything twice', 'write each result once: pycocotools counts the second as a false positive'].append(
            f'each of the {len(counts):,} distinct results occurs at least {min(counts.values())} times'
        )
    for image in sorted(sizes.keys() - seen):
        found['image without result', 'predict every sentence in every annotated frame; a mask may be empty'].append(
            f'image_id {image!r}'
        )
    return dict(found)


def evaluate(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Scores results that pass `check_results` against ground truth that passes `check_truth`.

    Returns:
        In percent, None where no object falls into a range of areas: 'mAP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L' of
        all results, and in 'best' the same of only the best result of each image; 'P@0.5' .. 'P@0.9', 'overall_IoU'
        (sum of intersections divided by sum of unions), 'mean_IoU'. 'images', 'results': counts. 'videos': {video:
        {'overall_IoU', 'mean_IoU', 'scores': {sentence: {'mean_IoU', 'images': {image id: IoU}}}}}; where the image
        ids do not name video and sentence, each image file is a video and each id a sentence.

    Raises:
        ValueError: an image has no result.
    """
    # Without other fields: a 'bbox' or 'caption' in the first result makes pycocotools score something else.
    results = [
        {key: result[key] for key in ('image_id', 'category_id', 'segmentation')} | {'score': float(result['score'])}
        for result in results
    ]
    of_image: dict[str | int, list[Mapping]] = collections.defaultdict(list)
    for result in results:
        of_image[result['image_id']].append(result)
    missing = [image['id'] for image in truth['images'] if image['id'] not in of_image]
    if missing:
        raise ValueError(f'image {missing[0]!r} has no result')
    # The sort is stable: of equal scores the last one wins.
    best = {image: sorted(of_this, key=lambda result: result['score'])[-1] for image, of_this in of_image.items()}
    coco = _coco(truth)
    annotations = {annotation['image_id']: annotation for annotation in coco.dataset['annotations']}
    rows = [
        (image, *_overlap(annotations[image['id']]['segmentation'], best[image['id']]['segmentation']))
        for image in truth['images']
    ]
    ious = np.array([iou for *_, iou in rows])
    summary = _average_precision(coco, results)
    summary |= {f'P@{threshold}': 100 * float(np.mean(ious > threshold)) for threshold in THRESHOLDS}
    summary |= _ious(rows)
    summary['best'] = _average_precision(coco, list(best.values()))
    return summary | {'images': len(rows), 'results': len(results), 'videos': _videos(rows)}


def _coco(truth: Mapping[str, Any]) -> COCO:
    images = {image['id']: {key: image[key] for key in ('id', 'height', 'width')} for image in truth['images']}
    coco = COCO()
    # Only the fields it needs, copied: pycocotools writes into annotations, and deep-copies fields it does not know.
    coco.dataset = {
        'images': list(images.values()),
        'categories': [{'id': category['id']} for category in truth['categories']],
        'annotations': [
            {key: entry[key] for key in ('id', 'image_id', 'category_id', 'area')}
            | {
                'iscrowd': entry.get('iscrowd', 0),
                'segmentation': _compressed(entry['segmentation'], images[entry['image_id']]),
            }
            for entry in truth['annotations']
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _compressed(segmentation: list | Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    return segmentations.compressed(segmentation, image['height'], image['width'])


def _average_precision(coco: COCO, results: Sequence[Mapping]) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes([dict(result) for result in results]), 'segm')
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # pycocotools gives -1 for a range of areas without any object.
    return {name: None if value < 0 else 100 * float(value) for name, value in zip(STATISTICS, evaluation.stats)}


def _overlap(truth: Mapping[str, Any], prediction: Mapping[str, Any]) -> tuple[int, int, float]:
    """Intersection and union in pixels, and IoU, of two RLEs."""
    intersection = int(rle.area(rle.merge([truth, prediction], intersect=True)))
    union = int(rle.area(truth)) + int(rle.area(prediction)) - intersection
    # In float32, as in the released code: rounding decides whether an IoU of exactly 0.6 is above 0.6.
    iou = (np.float32(intersection) + np.float32(EPSILON)) / (np.float32(union) + np.float32(EPSILON))
    return intersection, union, float(iou)


def _ious(rows: list[tuple]) -> dict[str, Any]:
    union = sum(row[2] for row in rows)
    return {
        'overall_IoU': 100 * sum(row[1] for row in rows) / union if union else None,
        'mean_IoU': 100 * float(np.mean([row[3] for row in rows])),
    }


def _videos(rows: list[tuple]) -> dict[str, dict]:
    videos: dict[str, dict[str, list[tuple]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        image = row[0]
        named = IMAGE_ID.fullmatch(str(image['id']))
        video = named['video'] if named else str(image.get('file_name', image['id']))
        videos[video][(named['sentence'] or '0') if named else str(image['id'])].append(row)
    return {
        video: _ious([row for of_sentence in sentences.values() for row in of_sentence])
        | {
            'scores': {
                sentence: {
                    'mean_IoU': _ious(of_sentence)['mean_IoU'],
                    'images': {str(row[0]['id']): 100 * row[3] for row in of_sentence},
                }
                for sentence, of_sentence in sentences.items()
            }
        }
        for video, sentences in sorted(videos.items())
    }
