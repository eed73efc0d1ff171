"""Region similarity J and boundary accuracy F, exactly as the DAVIS-2017 evaluation computes them.

Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR 2016;
Pont-Tuset et al., The 2017 DAVIS Challenge on Video Object Segmentation, 2017. Where the papers leave a
choice, the released davis2017-evaluation decides, its quirks included, so that numbers can be compared
with published ones.

Axis letters: T frames, H W pixels, N objects of the truth, P objects of the prediction.
"""
from collections.abc import Sequence
import functools
import typing

import cv2
import numpy as np

BOUND_TH = 0.008  # tolerance of F, as a fraction of the frame's diagonal


def region_similarity(truth: np.ndarray, prediction: np.ndarray, void: np.ndarray | None = None):
    """Intersection over union of two masks; 1 where both are empty.

    Args:
        truth, prediction: bool, [H W] or [T H W].
        void: bool, of the same shape; True on pixels that count neither for nor against.

    Returns:
        J in [0, 1]: a float for [H W], float64 [T] for [T H W].

    Raises:
        ValueError: the shapes differ, are not two or three axes, or a mask is not bool.
    """
    return _per_frame(_frame_region_similarity, truth, prediction, void)


def boundary_accuracy(truth: np.ndarray, prediction: np.ndarray, void: np.ndarray | None = None):
    """F-measure of the two masks' contours, matched within 0.8 % of the frame's diagonal.

    A contour without any pixel (an empty mask, and also one that fills the frame) has precision and
    recall 1 against another such contour, and F = 0 against any other.

    Args, Returns, Raises: as `region_similarity`; the result is F in [0, 1].
    """
    return _per_frame(_frame_boundary_accuracy, truth, prediction, void)


class Contours(typing.NamedTuple):
    """The contours of all objects of an index map.

    pixels: of each object, the places of its contour in the flattened frame, int [..].
    near: of each object, uint8 [H * W], 1 within the tolerance of its contour; None where it has none.
    """
    pixels: Sequence[np.ndarray]
    near: Sequence[np.ndarray | None]


def contours(index_map: np.ndarray, count: int) -> Contours:
    """The contours of the objects 1 to `count` of an index map, uint8 [H W]; the same as of each one's mask."""
    # Of all objects at once: a pixel is on the contour of each object that is in some but not all of the pixel and
    # its three neighbours. With the last row and column repeated, the frame's edge follows the same rule.
    edged = cv2.copyMakeBorder(index_map, 0, 1, 0, 1, cv2.BORDER_REPLICATE)
    here, east, south, south_east = edged[:-1, :-1], edged[:-1, 1:], edged[1:, :-1], edged[1:, 1:]
    places = np.flatnonzero((here != east) | (here != south) | (here != south_east))
    y, x = np.divmod(places, index_map.shape[1])
    meeting = np.stack([edged[y, x], edged[y, x + 1], edged[y + 1, x], edged[y + 1, x + 1]])
    pixels = [places[(meeting == number).any(0)] for number in range(1, count + 1)]
    return Contours(pixels, [_near(places, index_map.shape) for places in pixels])


def pairwise_region_similarity(truth: np.ndarray, prediction: np.ndarray, num_objects: int,
                               num_predicted: int) -> np.ndarray:
    """J of every object of `prediction` with every object of `truth`, float64 [P N].

    Args:
        truth, prediction: index maps, uint8 [H W], with ids up to `num_objects` N and `num_predicted` P, and 0 on
          what is not to count.
    """
    joint = truth.astype(np.uint16) * np.uint16(num_predicted + 1) + prediction
    counts = np.bincount(joint.ravel(), minlength=(num_objects + 1) * (num_predicted + 1))
    counts = counts.reshape(num_objects + 1, num_predicted + 1)
    intersection = counts[1:, 1:].T
    union = counts.sum(0)[1:, None] + counts.sum(1)[None, 1:] - intersection
    return np.where(union > 0, intersection / np.maximum(union, 1), 1.0)


def pairwise_boundary_accuracy(truth: Contours, prediction: Contours) -> np.ndarray:
    """F of every object of `prediction` with every object of `truth`, float64 [P N]."""
    return np.array([[_contour_accuracy(*of_truth, *of_prediction) for of_truth in zip(*truth)]
                     for of_prediction in zip(*prediction)]).reshape(len(prediction.pixels), len(truth.pixels))


def statistics(values) -> tuple[float, float, float]:
    """Mean, recall and decay of one object's J or F over the frames of a video.

    Args:
        values: [T], in frame order, T >= 1; nan (a frame without a value) does not count in the mean.

    Returns:
        mean: over frames. recall: the fraction of frames strictly above 0.5. decay: the mean of the first
        quarter of the frames less the mean of the last; nan where a quarter is empty (below).

    Raises:
        ValueError: `values` is not a vector of at least one frame.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f'values must be a vector of at least one frame, got shape {values.shape}')
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(np.int64) - 1
    # The released tool keeps these edges as uint8, so that they wrap in videos of more than 256 frames and
    # decay is then taken over other frames, or is nan. It is a bug; published numbers contain it.
    edges %= 256
    first, last = values[edges[0]:edges[1] + 1], values[edges[3]:edges[4] + 1]
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
            raise ValueError(f'{name} must be bool, got {mask.dtype}; of an index map, compare with the '
                             'object first')
        if mask.shape != truth.shape or mask.ndim not in (2, 3):
            raise ValueError(f'masks must share one shape [H W] or [T H W]: truth {truth.shape}, '
                             f'{name} {mask.shape}')
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
    near[top:top + box.shape[0], left:left + box.shape[1]] = cv2.dilate(box, disk)
    return near.ravel()


def _frame_boundary_accuracy(truth, prediction, void) -> float:
    disk = _frame_disk(truth.shape)  # The tolerance is that of the whole frame: taken before the crop.
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
    y, x = np.mgrid[-radius:radius + 1, -radius:radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


def _bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    """The part of the frame outside of which no boundary pixel can lie.

    The boundary reaches one pixel up and left of the mask; one more below and right keeps the rules of
    the frame's last row and column away from rows and columns that are not the frame's last. No margin
    for the dilation: a dilated map is only read at boundary pixels. So cropping is exact.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)


def _boundary_map(mask: np.ndarray) -> np.ndarray:
    """One-pixel contour, uint8 {0, 1} [H W]: pixels that differ from the one east, south or south-east.

    The last row looks only east, the last column only south, the corner is never boundary. A mask that
    reaches the frame's edge has no contour there.
    """
    boundary = np.zeros(mask.shape, bool)
    here = mask[:-1, :-1]
    boundary[:-1, :-1] = (here ^ mask[:-1, 1:]) | (here ^ mask[1:, :-1]) | (here ^ mask[1:, 1:])
    boundary[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    boundary[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return boundary.view(np.uint8)
