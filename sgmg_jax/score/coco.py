"""A2D-Sentences, JHMDB-Sentences and RefCOCO/+/g: COCO results against COCO ground truth or records."""

import argparse
from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any
import zipfile

import numpy as np
from pycocotools import mask as rle
import tqdm

from sgmg_jax import files
from sgmg_jax.data.decoding import Record
from sgmg_jax.evaluation import mean_ap, scoring
from sgmg_jax.score import common, zips

PROTOCOLS = 'a2d', 'jhmdb', 'refcoco'
LARGEST_MEMBER = 2**28  # bytes of uncompressed results in a zip; reading takes four times as many


def truth_of_records(protocol: str, split: Sequence[Record], progress: bool = False) -> dict[str, Any]:
    """COCO ground truth of built records: an image per sentence and frame in which its object is annotated.

    Areas are those of the masks. (The converted files of RefCOCO have those of the polygons: AP_S, AP_M and AP_L may
    differ slightly.)

    Args:
        protocol: 'a2d', 'jhmdb' or 'refcoco', for the image ids.
        progress: show a progress bar on stderr.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    for number in tqdm.trange(len(split), desc='reading', unit='video', disable=not progress):
        record = split[number]
        video = record.video
        for expression in video.expressions:
            for index in video.annotated_frames(expression.object_id):
                mask = record.decode_object(expression.object_id, index)
                segmentation = rle.encode(np.asfortranarray(mask, np.uint8))
                segmentation['counts'] = segmentation['counts'].decode()
                image = mean_ap.image_id(protocol, video.name, video.frame_names[index], expression.id)
                images.append({'id': image, 'height': video.height, 'width': video.width, 'file_name': video.name})
                annotations.append(
                    {
                        'id': len(images),
                        'image_id': image,
                        'category_id': 1,
                        'area': float(mask.sum()),
                        'segmentation': segmentation,
                        'iscrowd': int('crowd' in expression.tags),
                    }
                )
    return {'categories': [{'id': 1, 'name': 'dummy_class'}], 'images': images, 'annotations': annotations}


def _read_results(path: pathlib.Path) -> Any:
    """The JSON at `path`, or in the zip at `path`."""
    if not path.exists():
        raise FileNotFoundError(f'{path}: no such results. Give COCO results as .json or .zip.')
    try:
        files.check_regular(path)
        if not zipfile.is_zipfile(path):
            return files.read_json(path)
        with zips.open_zip(path) as archive:
            names = [
                name
                for name in archive.namelist()
                if name.endswith('.json') and not any(map(files.is_junk, name.split('/')))
            ]
            if len(names) != 1:
                raise ValueError(f'{path}: {len(names)} .json files in the zip, must be one')
            try:
                data = zips.read_member(archive, names[0], LARGEST_MEMBER)
            except ValueError as error:
                raise ValueError(f'{path}: {names[0]}: {error}') from error
        return files.parse_json(data, f'{path}: {names[0]}')
    except (OSError, ValueError) as error:
        raise common.WrongPredictions(
            [common.Problem('unreadable results', 1, (str(error),), 'give one JSON file, or a zip with one in it')]
        ) from error


def run(options: argparse.Namespace) -> dict[str, Any] | None:
    """Runs the command, see its help. Returns the scores, or None with --check-only."""
    gt = pathlib.Path(options.gt)
    truth = (
        files.read_json(gt)
        if gt.exists() and not gt.is_dir()
        else truth_of_records(options.protocol, common.open_records(gt, options.split), progress=True)
    )
    _check_truth(truth, gt)
    results = _checked_results(truth, options.pred)
    print(
        f'{files.printable(options.pred)}: complete and well-formed, {len(truth["images"]):,} images, '
        f'{len(results):,} results.'
    )
    different = {(result['image_id'], result['score'], result['segmentation']['counts']) for result in results}
    if len(different) < len(results):
        print(f'{len(results) - len(different):,} results are duplicates; pycocotools counts them as false positives.')
    if options.check_only:
        return None
    return mean_ap.evaluate(truth, results)


def score_submission(protocol: str, path: str | os.PathLike, split: Sequence[Record], progress: bool) -> dict[str, Any]:
    """See `score.score_submission`."""
    truth = truth_of_records(protocol, split, progress)
    _check_truth(truth, getattr(split, 'directory', 'the records'))
    return mean_ap.evaluate(truth, _checked_results(truth, path))


def _check_truth(truth: object, where: object) -> None:
    try:
        mean_ap.check_truth(truth)
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from error


def _checked_results(truth: Mapping[str, Any], path: str | os.PathLike) -> list[dict[str, Any]]:
    results = _read_results(pathlib.Path(path))
    problems = common.problems_of(mean_ap.check_results(truth, results))
    if problems:
        raise common.WrongPredictions(problems)
    return results


def format_scores(summary: Mapping[str, Any]) -> str:
    """See `score.format_scores`."""
    best = [*(f'P@{threshold}' for threshold in mean_ap.THRESHOLDS), 'overall_IoU', 'mean_IoU', 'images', 'results']
    return '\n\n'.join(
        [
            scoring.format_table({'all': summary, 'best': summary['best']}, mean_ap.STATISTICS),
            scoring.format_table({'best': summary}, best),
        ]
    )
