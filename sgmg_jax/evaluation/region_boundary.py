"""Region similarity J and boundary accuracy F, exactly as the DAVIS-2017 evaluation computes them.

Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR 2016;
Pont-Tuset et al., The 2017 DAVIS Challenge on Video Object Segmentation, 2017. Where the papers leave a
choice, the released davis2017-evaluation decides, its quirks included, so that numbers can be compared
with published ones.

Axis letters: T frames, H W pixels.
"""
import functools

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


def _frame_boundary_accuracy(truth, prediction, void) -> float:
    # The tolerance is that of the whole frame: taken before the crop.
    disk = _disk(int(np.ceil(BOUND_TH * np.linalg.norm(truth.shape))))
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
