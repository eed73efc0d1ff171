"""What each benchmark asks of a video, and the files it wants to see.

A protocol writes the predictions of one video into a folder, and makes of a folder with all videos what is submitted.

Axis letters: N objects, n frames of a window, T frames, H W pixels, Q queries.
"""
from collections.abc import Callable
import functools
import json
import pathlib
from typing import NamedTuple

import numpy as np
from pycocotools import mask as rle

from sgmg_jax import files, pictures
from sgmg_jax.evaluation import davis
from sgmg_jax.evaluation.mean_ap import image_id
from sgmg_jax.ops import masks
from sgmg_jax.score import submission
from sgmg_jax.score.common import format_problems
from sgmg_jax.score.ytvos import expected_videos

ANNOTATORS = len(davis.ANNOTATORS)
RESULTS = 'results'  # folder of the results of single videos


class Protocol(NamedTuple):
    """How one benchmark wants its files.

    write: function(predictor, record, folder), for one video.
    finish: function(folder, videos) -> path of what is submitted, when all of these metadata.Video are written.
    read: function(folder, video, expression, frame index) -> the mask that was written, bool [H W].
    annotated: whether only annotated frames are asked for.
    check: function(metadata.Video), which raises ValueError for one that does not fit.
    """
    write: Callable
    finish: Callable
    read: Callable
    annotated: bool = False
    check: Callable = lambda video: None


def write_expressions(predictor, record, folder):
    """Ref-YouTube-VOS: one binary mask an expression and frame."""
    video = record.video
    for start, ask in predictor.windows(record.decode_frames, len(video.frame_names)):
        for expression, logits in zip(video.expressions, ask([e.text for e in video.expressions])):
            names = video.frame_names[start:start + len(logits)]
            submission.write_masks(folder, video.name, expression.id, names, logits > 0)


def write_objects(predictor, record, folder):
    """Ref-DAVIS17: for each annotator, whose sentences are asked together, one map of all objects a frame."""
    video = record.video
    groups = annotator_groups(video)
    for start, ask in predictor.windows(record.decode_frames, len(video.frame_names)):
        for annotator, expressions in enumerate(groups):
            logits = np.stack(list(ask([expression.text for expression in expressions])))
            maps = masks.merge_objects(logits, [expression.object_id for expression in expressions])
            submission.write_maps(folder / davis.ANNOTATORS[annotator], video.name,
                                   video.frame_names[start:start + len(maps)], maps)


def annotator_groups(video):
    """The expressions of each annotator of a Ref-DAVIS17 video, by object; every fourth one is an annotator's.

    Raises:
        ValueError: if they are not so.
    """
    groups, objects = (), [[]]
    if all(e.id.isdecimal() for e in video.expressions):
        groups = [sorted((e for e in video.expressions if _annotator(e) == annotator),
                         key=lambda e: e.object_id) for annotator in range(ANNOTATORS)]
        objects = [[e.object_id for e in group] for group in groups]
    wanted = sorted(set(objects[0]))
    if not wanted or not 0 < wanted[0] <= wanted[-1] <= davis.MAX_PREDICTED or any(ids != wanted for ids in objects):
        raise ValueError(f'video {video.name}: has {len(video.expressions)} expressions, whose ids and objects are not '
                         f'those of Ref-DAVIS17, one of each object by each of {ANNOTATORS} annotators, objects from 1 '
                         f"to {davis.MAX_PREDICTED}. For other data use config.evaluation.protocol = 'ytvos'.")
    return groups


def _annotator(expression):
    return int(expression.id[-2:]) % ANNOTATORS  # The last two digits decide it.


def predict_annotated(predictor, record, benchmark):
    """A2D-Sentences, JHMDB-Sentences, RefCOCO: every query's mask in every annotated frame, as COCO results."""
    video, results = record.video, []
    frames_of = {e: video.annotated_frames(e.object_id) for e in video.expressions}
    for frame in sorted({frame for frames in frames_of.values() for frame in frames}):
        ask = predictor.annotated(record.decode_frames, len(video.frame_names), frame)
        for expression, frames in frames_of.items():
            if frame in frames:
                identity = image_id(benchmark, video.name, video.frame_names[frame], expression.id)
                scores, found = ask(expression.text)
                codes = rle.encode(np.asfortranarray(found.transpose(1, 2, 0), np.uint8))
                results += [
                    {'image_id': identity, 'category_id': 1, 'score': float(score),
                     'segmentation': {'size': code['size'], 'counts': code['counts'].decode('ascii')}}
                    for score, code in zip(scores, codes)]
    return results


def _check_whole(video):
    """Raises ValueError for a video with masks of single frames."""
    if video.mask_places is not None:
        raise ValueError(f'video {video.name}: has masks of single frames, which are not scored by J and F. Use '
                         f'config.evaluation.protocol = {" or ".join(map(repr, ANNOTATED))}, as the data set has it.')


def _check_davis(video):
    _check_whole(video)
    annotator_groups(video)


def _check_annotated(video, benchmark):
    """Raises ValueError if two of the images that are asked for have one id, or an id cannot be told."""
    ids = [image_id(benchmark, video.name, video.frame_names[frame], expression.id)
           for expression in video.expressions for frame in video.annotated_frames(expression.object_id)]
    if len(set(ids)) < len(ids):
        twice = next(name for number, name in enumerate(ids) if name in ids[:number])
        raise ValueError(f'video {video.name}: several images of a sentence and a frame have the image_id {twice!r} of '
                         f'{benchmark}. Use the config.evaluation.protocol of the data set.')


def _write_results(predictor, record, folder, benchmark):
    results = json.dumps(predict_annotated(predictor, record, benchmark))
    with files.replacing(_results(folder, record.video)) as partial:
        partial.write_text(results)


def _results(folder, video):
    return _path(folder, RESULTS, video.name, suffix='.json')


def _path(folder, *names, suffix):
    """A path below `folder`, of names that come from the data set."""
    for name in names:
        files.check_name(name, 'a name in the data set')
    return pathlib.Path(folder, *names[:-1], f'{names[-1]}{suffix}')


def _read_result(folder, video, expression, frame, benchmark):
    """Of the best query, the last one on ties."""
    wanted = image_id(benchmark, video.name, video.frame_names[frame], expression.id)
    results = [row for row in files.read_json(_results(folder, video)) if row['image_id'] == wanted]
    return rle.decode(sorted(results, key=lambda row: row['score'])[-1]['segmentation']) > 0


def _join_results(folder, videos):
    """One JSON of the results of all videos."""
    path = pathlib.Path(folder) / 'predictions.json'
    results = [row for video in videos for row in files.read_json(_results(folder, video))]
    with files.replacing(path) as partial:
        partial.write_text(json.dumps(results))
    return path


def _read_expression(folder, video, expression, frame):
    path = _path(folder, submission.TOP, video.name, expression.id, video.frame_names[frame], suffix='.png')
    return pictures.read_pixels(path, [pictures.PNG], (video.height, video.width), ['L']) > 127


def _read_object(folder, video, expression, frame):
    path = _path(folder, davis.ANNOTATORS[_annotator(expression)], video.name, video.frame_names[frame],
                 suffix='.png')
    return pictures.read_pixels(path, [pictures.PNG], (video.height, video.width), ['P']) == expression.object_id


def _zip_expressions(folder, videos):
    """Checked as an evaluation server would, which gives no reasons."""
    path = pathlib.Path(folder) / 'submission.zip'
    submission.zip_submission(folder, path)
    problems = submission.check_submission(path, expected_videos(videos))
    if problems:
        raise ValueError(f'{path}: not fit for upload.\n{format_problems(problems)}')
    return path


def _zip_objects(folder, videos):
    del videos  # What is missing, scoring finds: there is always ground truth.
    path = pathlib.Path(folder) / 'submission.zip'
    submission.zip_submission(folder, path, davis.ANNOTATORS)
    return path


ANNOTATED = 'a2d', 'jhmdb', 'refcoco'
# Of the data sets that the builders make.
USUAL = {'ref_youtube_vos': 'ytvos', 'ref_davis': 'davis', 'a2d_sentences': 'a2d', 'jhmdb_sentences': 'jhmdb',
         'refcoco': 'refcoco', 'refcoco_plus': 'refcoco', 'refcocog': 'refcoco'}
PROTOCOLS = {
    'ytvos': Protocol(write_expressions, _zip_expressions, _read_expression, check=_check_whole),
    'davis': Protocol(write_objects, _zip_objects, _read_object, check=_check_davis),
    **{name: Protocol(functools.partial(_write_results, benchmark=name), _join_results,
                      functools.partial(_read_result, benchmark=name), True,
                      functools.partial(_check_annotated, benchmark=name)) for name in ANNOTATED},
}


def choose(benchmark):
    """The protocol that config.evaluation.protocol names. Raises ValueError if there is none."""
    if benchmark not in PROTOCOLS:
        raise ValueError(f'config.evaluation.protocol = {benchmark!r}: there is only {", ".join(PROTOCOLS)}.')
    return PROTOCOLS[benchmark]
