"""Region similarity J and boundary accuracy F, exactly as the DAVIS-2017 evaluation computes them.

Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR 2016;
Pont-Tuset et al., The 2017 DAVIS Challenge on Video Object Segmentation, 2017. Where the papers leave a choice, we
follow the released davis2017-evaluation, including its quirks, so that numbers are comparable with published ones.

Axis letters: T frames, H W pixels, N objects of the truth, P objects of the prediction, n pixels of a contour.
"""

from collections.abc import Sequence
import functools
import typing

import cv2
from jaxtyping import Bool, Float, Float64, Int64, UInt8
import numpy as np

BOUND_TH = 0.008  # tolerance of F, as a fraction of the frame's diagonal

Masks = Bool[np.ndarray, '*T H W']  # of a frame or of a video


@typing.no_type_check  # checks its own arguments
def region_similarity(truth: Masks, prediction: Masks, void: Masks | None = None) -> float | Float64[np.ndarray, ' T']:
    """Intersection over union of two masks; 1 if both are empty.

    Args:
        void: True on pixels to ignore.

    Returns:
        J in [0, 1]: a float for [H W], float64 [T] for [T H W].

    Raises:
        ValueError: the shapes differ or do not have two or three axes, or a mask is not bool.
    """
    return _per_frame(_frame_region_similarity, truth, prediction, void)


@typing.no_type_check  # checks its own arguments
def boundary_accuracy(truth: Masks, prediction: Masks, void: Masks | None = None) -> float | Float64[np.ndarray, ' T']:
    """F-measure of the contours of two masks, matched within 0.8 % of the frame's diagonal.

    The contour of an empty mask, and of one that fills the frame, has no pixels: F = 1 against another such contour,
    0 against any other.

    Args, Returns, Raises: as `region_similarity`; the result is F in [0, 1].
    """
    return _per_frame(_frame_boundary_accuracy, truth, prediction, void)


class Contours(typing.NamedTuple):
    """The contours of all objects of an index map.

    pixels: for each object, the indices of its contour in the flattened frame.
    near: for each object, 1 within the tolerance of its contour; None without a contour.
    """

    pixels: Sequence[Int64[np.ndarray, ' n']]
    near: Sequence[UInt8[np.ndarray, ' H*W'] | None]


def contours(index_map: UInt8[np.ndarray, 'H W'], count: int) -> Contours:
    """The contours of the objects 1 to `count` of an index map, equal to those of their masks."""
    # All objects at once: a pixel is on the contour of each object that covers some but not all of the pixel and its
    # three neighbours. Repeating the last row and column makes the frame's edge follow the same rule.
    edged = cv2.copyMakeBorder(index_map, 0, 1, 0, 1, cv2.BORDER_REPLICATE)
    here, east, south, south_east = edged[:-1, :-1], edged[:-1, 1:], edged[1:, :-1], edged[1:, 1:]
    places = np.flatnonzero((here != east) | (here != south) | (here != south_east))
    y, x = np.divmod(places, index_map.shape[1])
    meeting = np.stack([edged[y, x], edged[y, x + 1], edged[y + 1, x], edged[y + 1, x + 1]])
    pixels = [places[(meeting == number).any(0)] for number in range(1, count + 1)]
    return Contours(pixels, [_near(places, index_map.shape) for places in pixels])


def pairwise_region_similarity(
    truth: UInt8[np.ndarray, 'H W'], prediction: UInt8[np.ndarray, 'H W'], num_objects: int, num_predicted: int
) -> Float64[np.ndarray, 'P N']:
    """J of every object of `prediction` with every object of `truth`.

    Args:
        truth, prediction: index maps with ids up to `num_objects` N and `num_predicted` P; 0 on pixels to ignore.
    """
    joint = truth.astype(np.uint16) * np.uint16(num_predicted + 1) + prediction
    counts = np.bincount(joint.ravel(), minlength=(num_objects + 1) * (num_predicted + 1))
    counts = counts.reshape(num_objects + 1, num_predicted + 1)
    intersection = counts[1:, 1:].T
    union = counts.sum(0)[1:, None] + counts.sum(1)[None, 1:] - intersection
    return np.where(union > 0, intersection / np.maximum(union, 1), 1.0)


def pairwise_boundary_accuracy(truth: Contours, prediction: Contours) -> Float64[np.ndarray, 'P N']:
    """F of every object of `prediction` with every object of `truth`."""
    return np.array(
        [
            [_contour_accuracy(*of_truth, *of_prediction) for of_truth in zip(*truth)]
            for of_prediction in zip(*prediction)
        ]
    ).reshape(len(prediction.pixels), len(truth.pixels))


@typing.no_type_check  # checks its own arguments
def statistics(values: Sequence[float] | Float[np.ndarray, ' T']) -> tuple[float, float, float]:
    """Mean, recall and decay of J or F of one object over the frames of a video.

    Args:
        values: in frame order, T >= 1; the means ignore nan (a frame without a value).

    Returns:
        mean: over frames. recall: the fraction of frames strictly above 0.5. decay: the mean of the first quarter of
        the frames minus that of the last; nan if a quarter is empty (see below).

    Raises:
        ValueError: `values` is not a vector of at least one frame.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f'values must be a vector of at least one frame, got shape {values.shape}')
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(np.int64) - 1
    # The released tool stores these edges as uint8. They wrap in videos of more than 256 frames, so that decay is
    # taken over other frames, or is nan. This is a bug that published numbers contain.
    edges %= 256
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return _nanmean(values), float(np.mean(values > 0.5)), _nanmean(first) - _nanmean(last)


def _nanmean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.mean(known)) if known.size else float('nan')


def _per_frame(measure, truth, prediction, void):
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    masks = {'truth': truth, 'prediction': prediction}
    if void is not None:
        masks['void'] = void = np.asarray(void)
    for name, mask in masks.items():
        if mask.dtype != bool:
            raise ValueError(
                f'{name} must be bool, got {mask.dtype}; compare an index map with the id of the object first'
            )
        if mask.shape != truth.shape or mask.ndim not in (2, 3):
            raise ValueError(f'masks must share one shape [H W] or [T H W]: truth {truth.shape}, {name} {mask.shape}')
    if truth.ndim == 2:
        return measure(truth, prediction, void)
    voids = [None] * len(truth) if void is None else void
    return np.array([measure(*frame) for frame in zip(truth, prediction, voids)], np.float64)


def _frame_region_similarity(truth, prediction, void) -> float:
    intersection, union = truth & prediction, truth | prediction
    if void is not None:
        intersection &= ~void
        union &= ~void
    size = np.count_nonzero(union)
    return np.count_nonzero(intersection) / size if size else 1.0


def _contour_accuracy(truth, near_truth, prediction, near_prediction) -> float:
    if not truth.size or not prediction.size:
        return float(truth.size == prediction.size)
    precision = np.count_nonzero(near_truth[prediction]) / prediction.size
    recall = np.count_nonzero(near_prediction[truth]) / truth.size
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _near(places: np.ndarray, shape: tuple[int, int]) -> np.ndarray | None:
    if not places.size:
        return None
    disk = _frame_disk(shape)
    y, x = np.divmod(places, shape[1])
    margin = len(disk) // 2
    top, left = max(y.min() - margin, 0), max(x.min() - margin, 0)
    box = np.zeros((min(y.max() + margin + 1, shape[0]) - top, min(x.max() + margin + 1, shape[1]) - left), np.uint8)
    box[y - top, x - left] = 1
    near = np.zeros(shape, np.uint8)
    near[top : top + box.shape[0], left : left + box.shape[1]] = cv2.dilate(box, disk)
    return near.ravel()


def _frame_boundary_accuracy(truth, prediction, void) -> float:
    disk = _frame_disk(truth.shape)  # before cropping: the tolerance depends on the size of the whole frame
    if void is not None:
        truth, prediction = truth & ~void, prediction & ~void
    box = _bounding_box(truth | prediction)
    truth, prediction = _boundary_map(truth[box]), _boundary_map(prediction[box])

    of_truth, of_prediction = np.count_nonzero(truth), np.count_nonzero(prediction)
    if not of_truth and not of_prediction:
        return 1.0
    if not of_truth or not of_prediction:
        return 0.0
    precision = np.count_nonzero(prediction & cv2.dilate(truth, disk)) / of_prediction
    recall = np.count_nonzero(truth & cv2.dilate(prediction, disk)) / of_truth
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _frame_disk(shape: tuple[int, int]) -> np.ndarray:
    return _disk(int(np.ceil(BOUND_TH * np.linalg.norm(shape))))


@functools.lru_cache(maxsize=32)
def _disk(radius: int) -> np.ndarray:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


def _bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    """The part of the frame that contains every boundary pixel.

    The boundary extends one pixel above and left of the mask. One more row and column below and right keep the special
    rules for the last row and column of the frame away from the crop. Dilation needs no margin: a dilated map is only
    read at boundary pixels. So cropping is exact.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)


def _boundary_map(mask: np.ndarray) -> np.ndarray:
    """One-pixel contour, uint8 {0, 1} [H W]: pixels that differ from their east, south or south-east neighbour.

    The last row compares only east, the last column only south, and the corner is never boundary. A mask that reaches
    the edge of the frame has no contour there.
    """
    boundary = np.zeros(mask.shape, bool)
    here = mask[:-1, :-1]
    boundary[:-1, :-1] = (here ^ mask[:-1, 1:]) | (here ^ mask[1:, :-1]) | (here ^ mask[1:, 1:])
    boundary[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    boundary[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return boundary.view(np.uint8)
