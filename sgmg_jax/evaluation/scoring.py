"""From masks to a table: J and F of each expression, then their means over a data set.

As in the papers of the data sets, the score of an expression is the mean over its frames, including the first and the
last, and that of a data set is the mean over its expressions, however long their videos are. Void pixels (255 in an
index map) are ignored.

Axis letters: T frames, H W pixels.
"""

from collections.abc import Iterable, Mapping, Sequence
import math
import typing
from typing import Any

from jaxtyping import Bool, Float64, UInt8
import numpy as np

from sgmg_jax import files
from sgmg_jax.evaluation import region_boundary

VOID = 255
MCS_THRESHOLDS = 0.5, 0.7, 0.9
MCS = tuple(f'MCS@{threshold}' for threshold in MCS_THRESHOLDS)
# Columns of a table, before the counts.
COLUMNS = (
    'J&F',
    'J',
    'F',
    'J_recall',
    'F_recall',
    'J_decay',
    'F_decay',
    'J_variance',
    'F_variance',
    'J&F_variance',
    *MCS,
    'tIoU',
    'vIoU',
)


@typing.no_type_check  # checks its own arguments
def score_expression(
    truth: Bool[np.ndarray, 'T H W'] | UInt8[np.ndarray, 'T H W'],
    object_id: int | None,
    prediction: Bool[np.ndarray, 'T H W'],
) -> dict[str, Any]:
    """J and F of one expression over the frames of its video.

    Args:
        truth: an index map (0 background, 255 void, otherwise the id of an object) or, if `object_id` is None, the mask
            of the object.
        object_id: the referred object in an index map, 1 to 254. It may be absent from every frame.

    Returns:
        'J', 'F': float64 [T] in [0, 1]; 'J_mean', 'J_recall', 'J_decay', 'F_mean', 'F_recall', 'F_decay': floats, see
        `region_boundary.statistics`; 'there', 'seen': bool [T], whether truth and prediction have a pixel that is not
        void; 'tIoU', 'vIoU': floats in [0, 1], see `overlap_in_time`.

    Raises:
        ValueError: a shape or type does not fit, or there is no frame.
    """
    truth = np.asarray(truth)
    void = None
    if truth.dtype != bool:
        if truth.dtype != np.uint8:
            raise ValueError(f'truth must be a uint8 index map or a bool mask, got {truth.dtype}')
        if object_id is None or not 0 < object_id < VOID:
            raise ValueError(f'object_id {object_id} must be 1 to 254, the ids of an index map')
        void = truth == VOID
        truth = truth == object_id
        if not void.any():
            void = None
    elif object_id is not None:
        raise ValueError(f'object_id must be None, is {object_id}: truth is the bool mask of one object')
    if truth.ndim != 3:
        raise ValueError(f'truth must be [T H W], got shape {truth.shape}')

    region = region_boundary.region_similarity(truth, prediction, void)
    boundary = region_boundary.boundary_accuracy(truth, prediction, void)
    there, seen = (
        np.any(mask if void is None else mask & ~void, axis=(1, 2)) for mask in (truth, np.asarray(prediction))
    )
    return with_statistics(region, boundary, there, seen)


def overlap_in_time(
    region: Float64[np.ndarray, ' T'], there: Bool[np.ndarray, ' T'], seen: Bool[np.ndarray, ' T']
) -> tuple[float, float]:
    """tIoU and vIoU of an object, in [0, 1] (Long-RVOS, iSEE-Laboratory); both 1 if it is in no frame of either.

    tIoU: the fraction of frames with the object in truth and prediction, of those with it in one of them. vIoU: the sum
    of J over the former, divided by the number of the latter.

    Args:
        region: J of each frame.
        there, seen: whether the object is in the frame, in truth and in prediction.
    """
    both, either = there & seen, there | seen
    if not either.any():
        return 1.0, 1.0
    return float(both.sum() / either.sum()), float(region[both].sum() / either.sum())


def with_statistics(
    region: Float64[np.ndarray, ' T'],
    boundary: Float64[np.ndarray, ' T'],
    there: Bool[np.ndarray, ' T'],
    seen: Bool[np.ndarray, ' T'],
) -> dict[str, Any]:
    """The result of `score_expression`, given J and F of each frame, and which frames have the object."""
    score: dict[str, Any] = {'J': region, 'F': boundary, 'there': there, 'seen': seen}
    score['tIoU'], score['vIoU'] = overlap_in_time(region, there, seen)
    for measure in ('J', 'F'):
        mean, recall, decay = region_boundary.statistics(score[measure])
        score |= {f'{measure}_mean': mean, f'{measure}_recall': recall, f'{measure}_decay': decay}
    return score


def summarise(scores: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over all expressions, per tag and per video; ready for JSON.

    Args:
        scores: the result of `score_expression` for each expression, with 'video' (str), 'expression' (its id, str) and
            'tags' (tuple of str, may be empty) added.

    Returns:
        {'J', 'F', 'J&F', 'J_recall', 'F_recall', 'J_decay', 'F_decay': percent, 'J_variance', 'F_variance',
        'J&F_variance': temporal consistency, 'MCS@0.5', 'MCS@0.7', 'MCS@0.9', 'tIoU', 'vIoU': percent, 'expressions',
        'frames': counts, 'tags': {tag: the same numbers}, 'videos': {video: the same numbers and 'scores':
        {expression: {'J', 'F'}}}}. An expression counts in each of its tags. A decay is None if it is undefined for any
        expression, which happens in some long videos with the released statistics. Temporal consistency is our own
        measure, from no paper: the population variance over frames of J, of F and of (J + F) / 2, all in [0, 1],
        averaged over expressions. MCS (mask consistency score, HTR by Miao et al., 2024; default threshold 0.9) is the
        percentage of expressions whose J is above the threshold in every frame. tIoU and vIoU: see `overlap_in_time`.

    Raises:
        ValueError: no scores, or an expression is scored twice.
    """
    scores = list(scores)
    if not scores:
        raise ValueError('no scored expression: does this split have ground truth?')
    tags: dict[str, list[Mapping]] = {}
    videos: dict[str, dict[str, Mapping]] = {}
    for score in scores:
        videos.setdefault(score['video'], {})
        if score['expression'] in videos[score['video']]:
            raise ValueError(f'video {score["video"]}: expression {score["expression"]} is scored twice')
        videos[score['video']][score['expression']] = score
        for tag in dict.fromkeys(score['tags']):
            tags.setdefault(tag, []).append(score)
    summary = _means(scores)
    summary['tags'] = {tag: _means(tags[tag]) for tag in sorted(tags)}
    summary['videos'] = {
        video: _means(list(of_video.values()))
        | {
            'scores': {
                expression: {'J': 100 * score['J_mean'], 'F': 100 * score['F_mean']}
                for expression, score in of_video.items()
            }
        }
        for video, of_video in sorted(videos.items())
    }
    return summary


def _means(scores: list[Mapping[str, Any]]) -> dict[str, Any]:
    def percent(key: str) -> float | None:
        mean = 100 * float(np.mean([score[key] for score in scores]))
        return None if math.isnan(mean) else mean  # JSON has no nan.

    means: dict[str, Any] = {'J': percent('J_mean'), 'F': percent('F_mean')}
    means['J&F'] = (means['J'] + means['F']) / 2
    for key in ('J_recall', 'F_recall', 'J_decay', 'F_decay'):
        means[key] = percent(key)
    means['J_variance'] = float(np.mean([np.var(score['J']) for score in scores]))
    means['F_variance'] = float(np.mean([np.var(score['F']) for score in scores]))
    means['J&F_variance'] = float(np.mean([np.var((score['J'] + score['F']) / 2) for score in scores]))
    lowest = np.array([np.min(score['J']) for score in scores])
    means |= {name: 100 * float(np.mean(lowest > threshold)) for name, threshold in zip(MCS, MCS_THRESHOLDS)}
    means |= {name: percent(name) for name in ('tIoU', 'vIoU')}
    means['expressions'] = len(scores)
    means['frames'] = sum(len(score['J']) for score in scores)
    return means


def format_summary(summary: Mapping[str, Any]) -> str:
    """A printable table: a row for all expressions, then one per tag."""
    return format_table({'all': summary} | summary['tags'], (*COLUMNS, 'expressions', 'frames'))


def format_table(rows_of_means: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A printable table: a row per entry with the given columns; '-' where a number is None."""
    rows = [('', *columns)]
    for name, means in rows_of_means.items():
        cells = [
            '-'
            if means[key] is None
            else means[key]
            if isinstance(means[key], int)
            else f'{means[key]:.4f}'
            if key.endswith('variance')
            else f'{means[key]:.2f}'
            for key in columns
        ]
        rows.append((files.one_line(name, 80), *map(str, cells)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for name, *cells in rows:
        cells = [cell.rjust(width) for cell, width in zip(cells, widths[1:])]
        lines.append('  '.join([name.ljust(widths[0]), *cells]))
    lines.insert(1, '-' * len(lines[0]))
    return '\n'.join(lines)
