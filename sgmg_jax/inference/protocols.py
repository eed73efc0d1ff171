"""The protocol of each benchmark: what to predict for a video, and which files to write.

A protocol writes the predictions of each video into a folder, then turns the folder of all videos into a submission.

Axis letters: N objects, n frames of a window, T frames, H W pixels, Q queries.
"""

from collections.abc import Callable, Sequence
import functools
import json
import os
import pathlib
from typing import NamedTuple

from jaxtyping import Bool
import numpy as np
from pycocotools import mask as rle

from sgmg_jax import files, pictures
from sgmg_jax.data import metadata, records
from sgmg_jax.evaluation import davis
from sgmg_jax.evaluation.mean_ap import image_id
from sgmg_jax.inference.predictor import Predictor
from sgmg_jax.ops import masks
from sgmg_jax.score import mevis, submission
from sgmg_jax.score.check import check_submission
from sgmg_jax.score.common import format_problems
from sgmg_jax.score.ytvos import expected_videos

ANNOTATORS = len(davis.ANNOTATORS)
MASKS_PER_PROCESS = 2000  # that check a submission: as many as take longer than a process to start
RESULTS = 'results'  # folder of the results of single videos
Mask = Bool[np.ndarray, 'H W']


class Protocol(NamedTuple):
    """The files of one benchmark.

    write: function(predictor, record, folder): writes the predictions of one video.
    finish: function(folder, videos) -> path of the submission, once all videos are written.
    read: function(folder, video, expression, frame index) -> the written mask.
    annotated: whether only annotated frames are predicted.
    check: function(video): raises ValueError for a video that does not fit.
    """

    write: Callable[[Predictor, records.Record, pathlib.Path], None]
    finish: Callable[[pathlib.Path, Sequence[metadata.Video]], pathlib.Path]
    read: Callable[[pathlib.Path, metadata.Video, metadata.Expression, int], Mask]
    annotated: bool = False
    check: Callable[[metadata.Video], None] = lambda video: None


def write_expressions(predictor: Predictor, record: records.Record, folder: pathlib.Path) -> None:
    """Ref-YouTube-VOS, MeViS: one binary mask per expression and frame, see Predictor's `threshold`."""
    video = record.video
    for start, ask in predictor.windows(record.decode_frames, len(video.frame_names)):
        for expression, answer in zip(video.expressions, ask([e.text for e in video.expressions])):
            names = video.frame_names[start : start + len(answer.scores)]
            found = answer.masks(predictor.threshold)
            submission.write_masks(folder, video.name, expression.id, names, found)


def write_objects(predictor: Predictor, record: records.Record, folder: pathlib.Path) -> None:
    """Ref-DAVIS17: for each annotator one map of all objects per frame. The predictor gets all sentences of an
    annotator at once."""
    video = record.video
    groups = annotator_groups(video)
    for start, ask in predictor.windows(record.decode_frames, len(video.frame_names)):
        for annotator, expressions in enumerate(groups):
            logits = np.stack([answer.logits for answer in ask([expression.text for expression in expressions])])
            maps = masks.merge_objects(logits, [expression.object_id for expression in expressions])
            submission.write_maps(
                folder / davis.ANNOTATORS[annotator], video.name, video.frame_names[start : start + len(maps)], maps
            )


def annotator_groups(video: metadata.Video) -> list[list[metadata.Expression]]:
    """The expressions of each annotator of a Ref-DAVIS17 video, sorted by object. Every fourth expression is the same
    annotator's.

    Raises:
        ValueError: if the video's expressions are not laid out like this.
    """
    groups: list[list[metadata.Expression]] = []
    objects: list[list[int]] = [[]]
    if all(e.id.isdecimal() for e in video.expressions):
        groups = [
            sorted((e for e in video.expressions if _annotator(e) == annotator), key=lambda e: e.object_id)
            for annotator in range(ANNOTATORS)
        ]
        objects = [[e.object_id for e in group] for group in groups]
    wanted = sorted(set(objects[0]))
    if not wanted or not 0 < wanted[0] <= wanted[-1] <= davis.MAX_PREDICTED or any(ids != wanted for ids in objects):
        raise ValueError(
            f'video {video.name}: has {len(video.expressions)} expressions, whose ids and objects do not '
            f'fit Ref-DAVIS17: one for each object by each of {ANNOTATORS} annotators, objects from 1 to '
            f"{davis.MAX_PREDICTED}. For other data use config.evaluation.protocol = 'ytvos'."
        )
    return groups


def _annotator(expression: metadata.Expression) -> int:
    return int(expression.id[-2:]) % ANNOTATORS  # 4 divides 100, so two digits suffice.


def predict_annotated(predictor: Predictor, record: records.Record, benchmark: str) -> list[dict]:
    """A2D-Sentences, JHMDB-Sentences, RefCOCO: every query's mask in every annotated frame, as COCO results."""
    video = record.video
    results: list[dict] = []
    frames_of = {e: video.annotated_frames(e.object_id) for e in video.expressions}
    for frame in sorted({frame for frames in frames_of.values() for frame in frames}):
        ask = predictor.annotated(record.decode_frames, len(video.frame_names), frame)
        for expression, frames in frames_of.items():
            if frame in frames:
                identity = image_id(benchmark, video.name, video.frame_names[frame], expression.id)
                scores, found = ask(expression.text)
                codes = rle.encode(np.asfortranarray(found.transpose(1, 2, 0), np.uint8))
                results += [
                    {
                        'image_id': identity,
                        'category_id': 1,
                        'score': float(score),
                        'segmentation': {'size': code['size'], 'counts': code['counts'].decode('ascii')},
                    }
                    for score, code in zip(scores, codes)
                ]
    return results


def _check_whole(video: metadata.Video) -> None:
    """Raises ValueError for a video with masks of single frames."""
    if video.mask_places is not None:
        raise ValueError(
            f'video {video.name}: has masks of single frames, which J and F cannot score. Set '
            f'config.evaluation.protocol to that of the data set, {" or ".join(map(repr, ANNOTATED))}.'
        )


def _check_davis(video: metadata.Video) -> None:
    _check_whole(video)
    annotator_groups(video)


def _check_annotated(video: metadata.Video, benchmark: str) -> None:
    """Raises ValueError for groups of objects, and if two images of the video have the same id or one has none."""
    if video.mask_layers is not None:
        raise ValueError(
            f'video {video.name}: its sentences refer to groups of objects, which {benchmark} cannot score. Set '
            "config.evaluation.protocol = 'mevis'."
        )
    ids = [
        image_id(benchmark, video.name, video.frame_names[frame], expression.id)
        for expression in video.expressions
        for frame in video.annotated_frames(expression.object_id)
    ]
    if len(set(ids)) < len(ids):
        twice = next(name for number, name in enumerate(ids) if name in ids[:number])
        raise ValueError(
            f'video {video.name}: several images of a sentence and a frame have the image_id {twice!r} of '
            f'{benchmark}. Use the config.evaluation.protocol of the data set.'
        )


def _write_results(predictor: Predictor, record: records.Record, folder: pathlib.Path, benchmark: str) -> None:
    results = json.dumps(predict_annotated(predictor, record, benchmark))
    with files.replacing(_results(folder, record.video)) as partial:
        partial.write_text(results)


def _results(folder: pathlib.Path, video: metadata.Video) -> pathlib.Path:
    return _path(folder, RESULTS, video.name, suffix='.json')


def _path(folder: str | os.PathLike, *names: str, suffix: str) -> pathlib.Path:
    """A path below `folder`, from names in the data set, which are checked."""
    for name in names:
        files.check_name(name, 'a name in the data set')
    return pathlib.Path(folder, *names[:-1], f'{names[-1]}{suffix}')


def _read_result(
    folder: pathlib.Path, video: metadata.Video, expression: metadata.Expression, frame: int, benchmark: str
) -> Mask:
    """The mask of the best query, the last one on ties."""
    wanted = image_id(benchmark, video.name, video.frame_names[frame], expression.id)
    results = [row for row in files.read_json(_results(folder, video)) if row['image_id'] == wanted]
    return rle.decode(sorted(results, key=lambda row: row['score'])[-1]['segmentation']) > 0


def _join_results(folder: pathlib.Path, videos: Sequence[metadata.Video]) -> pathlib.Path:
    """Joins the results of all videos in one JSON file."""
    path = pathlib.Path(folder) / 'predictions.json'
    results = [row for video in videos for row in files.read_json(_results(folder, video))]
    with files.replacing(path) as partial:
        partial.write_text(json.dumps(results))
    return path


def _read_expression(folder: pathlib.Path, video: metadata.Video, expression: metadata.Expression, frame: int) -> Mask:
    path = _path(folder, submission.TOP, video.name, expression.id, video.frame_names[frame], suffix='.png')
    return pictures.read_pixels(path, [pictures.PNG], (video.height, video.width), ['L']) > 127


def _read_object(folder: pathlib.Path, video: metadata.Video, expression: metadata.Expression, frame: int) -> Mask:
    path = _path(folder, davis.ANNOTATORS[_annotator(expression)], video.name, video.frame_names[frame], suffix='.png')
    return pictures.read_pixels(path, [pictures.PNG], (video.height, video.width), ['P']) == expression.object_id


def _zip_expressions(folder: pathlib.Path, videos: Sequence[metadata.Video]) -> pathlib.Path:
    """Checks the zip like the evaluation server, which gives no reasons when it rejects one."""
    path = pathlib.Path(folder) / 'submission.zip'
    submission.zip_submission(folder, path)
    return _checked(path, videos, submission.TOP)


def _zip_videos(folder: pathlib.Path, videos: Sequence[metadata.Video]) -> pathlib.Path:
    """The folders of the videos at the top; checked like those of Ref-YouTube-VOS."""
    path = pathlib.Path(folder) / 'submission.zip'
    submission.zip_submission(pathlib.Path(folder) / submission.TOP, path, (mevis.TOP,))
    return _checked(path, videos, mevis.TOP)


def _checked(path: pathlib.Path, videos: Sequence[metadata.Video], top: str) -> pathlib.Path:
    masks = sum(len(video.expressions) * len(video.frame_names) for video in videos)
    processes = min(os.cpu_count() or 1, 1 + masks // MASKS_PER_PROCESS)
    problems = check_submission(path, expected_videos(videos), processes, top=top)
    if problems:
        raise ValueError(f'{path}: the evaluation server would reject it.\n{format_problems(problems)}')
    return path


def _zip_objects(folder: pathlib.Path, videos: Sequence[metadata.Video]) -> pathlib.Path:
    del videos  # There is always ground truth, so scoring finds missing files.
    path = pathlib.Path(folder) / 'submission.zip'
    submission.zip_submission(folder, path, davis.ANNOTATORS)
    return path


ANNOTATED = 'a2d', 'jhmdb', 'refcoco'
EMPTYING = 'ytvos', 'mevis'  # where a sentence with a low score may have empty masks
# The protocol of each data set.
USUAL = {
    'ref_youtube_vos': 'ytvos',
    'ref_davis': 'davis',
    'mevis': 'mevis',
    'a2d_sentences': 'a2d',
    'jhmdb_sentences': 'jhmdb',
    'refcoco': 'refcoco',
    'refcoco_plus': 'refcoco',
    'refcocog': 'refcoco',
}
PROTOCOLS = {
    'ytvos': Protocol(write_expressions, _zip_expressions, _read_expression, check=_check_whole),
    'davis': Protocol(write_objects, _zip_objects, _read_object, check=_check_davis),
    **{
        name: Protocol(
            functools.partial(_write_results, benchmark=name),
            _join_results,
            functools.partial(_read_result, benchmark=name),
            True,
            functools.partial(_check_annotated, benchmark=name),
        )
        for name in ANNOTATED
    },
    'mevis': Protocol(write_expressions, _zip_videos, _read_expression, check=_check_whole),
}


def choose(benchmark: str) -> Protocol:
    """The protocol that config.evaluation.protocol names. Raises ValueError for an unknown name."""
    if benchmark not in PROTOCOLS:
        raise ValueError(f'config.evaluation.protocol = {benchmark!r}: must be one of {", ".join(PROTOCOLS)}.')
    return PROTOCOLS[benchmark]
