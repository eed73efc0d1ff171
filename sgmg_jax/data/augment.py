"""Augmentation of clips: plain functions (sample, rng, augmentation) -> sample, applied in turn.

Geometry is drawn once per clip, so that motion stays motion; colour is drawn per frame. The default numbers and order
are the released code's for Ref-YouTube-VOS and Ref-DAVIS17; the configs of other data sets set their own.

Axis letters: T frames, E sentences, h w pixels.
"""

import dataclasses
import numbers
import re
import typing

import cv2
from jaxtyping import Bool, UInt8
import numpy as np

from sgmg_jax.data import clips

# 'left', 'Right-hand', 'leftmost', 'rightwards', but neither 'bright' nor 'upright'. A word is a run of letters: '_'
# and digits end it.
SIDES = re.compile(r'(?<![^\W\d_])(left|right)(?=(?:most|hand|handed|side|wards?)?(?![^\W\d_]))', re.IGNORECASE)
SIDES_BETWEEN = 16, 8192  # pixels


def select(sample: clips.Sample, rng: np.random.Generator, augmentation: 'Augmentation') -> clips.Sample:
    """Resizes to a random scale, with `crop_probability` after a random crop; then drops boxes without extent."""
    scales, max_size = augmentation.scales, augmentation.max_size
    if rng.random() < augmentation.crop_probability:
        sample = resize(sample, int(rng.choice(augmentation.crop_scales)))
        height, width = sample.frames.shape[1:3]
        crop_height, crop_width = (_crop_side(rng, side, augmentation.crop_size) for side in (height, width))
        top = int(rng.integers(0, height - crop_height + 1))
        left = int(rng.integers(0, width - crop_width + 1))
        sample = crop(sample, top, left, crop_height, crop_width)
        scales, max_size = augmentation.cropped_scales, augmentation.cropped_max_size
    return check(resize(sample, int(rng.choice(scales)), max_size))


def flip(sample: clips.Sample, rng: np.random.Generator, augmentation: 'Augmentation') -> clips.Sample:
    """With `flip_probability`, mirrors the clip and swaps left and right in its sentences."""
    return mirror(sample) if rng.random() < augmentation.flip_probability else sample


def photometric(sample: clips.Sample, rng: np.random.Generator, augmentation: 'Augmentation') -> clips.Sample:
    """Distorts brightness, contrast, saturation and channel order, each frame independently."""
    return dataclasses.replace(sample, frames=np.stack([_distort(frame, rng) for frame in sample.frames]))


STEPS = {'select': select, 'flip': flip, 'photometric': photometric}


@typing.no_type_check  # checks its own arguments
@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Parameters of the augmentation; the defaults are the released values. Sizes are in pixels.

    order: the steps, in order: any of 'select', 'flip', 'photometric'.
    scales: short sides to draw from.
    max_size: upper bound of the long side.
    crop_probability: how often the clip is cropped before it is resized.
    crop_scales: short sides to draw from before the crop.
    crop_size: smallest and largest side of the crop, clipped to the size of the frames.
    cropped_scales, cropped_max_size: like scales and max_size, for clips that were cropped.
    flip_probability: how often the clip is mirrored.
    """

    order: tuple[str, ...] = ('select', 'flip', 'photometric')
    scales: tuple[int, ...] = (288, 320, 352, 392, 416, 448, 480, 512)
    max_size: int = 640
    crop_probability: float = 0.5
    crop_scales: tuple[int, ...] = (400, 500, 600)
    crop_size: tuple[int, int] = (384, 600)
    cropped_scales: tuple[int, ...] = (288, 320, 352, 392, 416, 448, 480, 512)
    cropped_max_size: int = 640
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        """Raises ValueError, naming the field, for an invalid value."""
        here = 'config.data.augmentation'
        for name in ('crop_probability', 'flip_probability'):
            check_number(f'{here}.{name}', getattr(self, name), 0, 1, whole=False)
        for name in ('scales', 'max_size', 'crop_scales', 'crop_size', 'cropped_scales', 'cropped_max_size'):
            value = getattr(self, name)
            sizes = [value] if name.endswith('max_size') else value
            if not isinstance(sizes, tuple | list) or not sizes:
                raise ValueError(f'{here}.{name} = {value!r:.200}: must be a tuple of one size or more.')
            for size in sizes:
                check_number(f'{here}.{name}', size, *SIDES_BETWEEN)
        if len(self.crop_size) != 2 or self.crop_size[0] > self.crop_size[1]:
            raise ValueError(f'{here}.crop_size = {self.crop_size}: must be the smallest and the largest side.')
        if not isinstance(self.order, tuple | list):
            raise ValueError(f'{here}.order = {self.order!r:.200}: must be a tuple of {", ".join(STEPS)}.')
        unknown = [step for step in self.order if step not in tuple(STEPS)]
        if unknown:
            raise ValueError(f'{here}.order: {unknown[0]!r:.200} must be one of {", ".join(STEPS)}.')


def check_number(name: str, value: object, low: float | int, high: float | int, whole: bool = True) -> None:
    """Raises ValueError, beginning with `name`, unless `value` is a number from `low` to `high`."""
    kind = numbers.Integral if whole else numbers.Real
    if not isinstance(value, kind) or isinstance(value, bool) or not low <= typing.cast(float, value) <= high:
        raise ValueError(f'{name} = {value!r:.200}: must be a {"whole " * whole}number from {low} to {high}.')


def apply(
    sample: clips.Sample, rng: np.random.Generator, augmentation: Augmentation, frame_size: tuple[int, int]
) -> clips.Sample:
    """Augments a sample and makes it fit `frame_size` = (H, W).

    A clip that is still too large, such as a tall video in a wide static shape, is scaled down once more; its aspect
    ratio is kept.
    """
    for step in augmentation.order:
        sample = STEPS[step](sample, rng, augmentation)
    height, width = sample.frames.shape[1:3]
    ratio = min(frame_size[0] / height, frame_size[1] / width)
    if ratio < 1:
        sample = resize_to(
            sample, max(1, min(frame_size[0], round(height * ratio))), max(1, min(frame_size[1], round(width * ratio)))
        )
    return check(sample)


def resize(sample: clips.Sample, short_side: int, max_side: int | None = None) -> clips.Sample:
    """Resizes to a short side, with a bound on the long one; keeps the aspect ratio."""
    height, width = sample.frames.shape[1:3]
    return resize_to(sample, *clips.resized_size(height, width, short_side, max_side))


def resize_to(sample: clips.Sample, height: int, width: int) -> clips.Sample:
    """Resizes frames (by area when they shrink, against aliasing), masks (nearest) and boxes."""
    old_height, old_width = sample.frames.shape[1:3]
    if (height, width) == (old_height, old_width):
        return sample
    how = cv2.INTER_AREA if height < old_height else cv2.INTER_LINEAR
    frames = np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in sample.frames])
    masks = np.stack(
        [cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) for mask in sample.masks]
    ).astype(bool)
    ratio = np.array([width / old_width, height / old_height] * 2, np.float32)
    return dataclasses.replace(sample, frames=frames, masks=masks, boxes=sample.boxes * ratio)


def crop(sample: clips.Sample, top: int, left: int, height: int, width: int) -> clips.Sample:
    """Crops every frame to the same window; boxes are shifted and clipped to it."""
    window = np.s_[:, top : top + height, left : left + width]
    boxes = np.clip(sample.boxes - np.array([left, top] * 2, np.float32), 0, np.array([width, height] * 2, np.float32))
    return dataclasses.replace(sample, frames=sample.frames[window], masks=sample.masks[window], boxes=boxes)


def check(sample: clips.Sample) -> clips.Sample:
    """Marks the object as absent where its box has no extent, and zeroes that box.

    A box ends on the last column and row, so the box of an object one pixel wide or high has no extent.
    """
    present = (sample.boxes[:, 2] > sample.boxes[:, 0]) & (sample.boxes[:, 3] > sample.boxes[:, 1])
    return dataclasses.replace(sample, boxes=sample.boxes * present[:, None], present=present)


def mirror(sample: clips.Sample) -> clips.Sample:
    """Mirrors frames, masks and boxes left to right, and swaps left and right in the sentences."""
    width = sample.frames.shape[2]
    x1, y1, x2, y2 = sample.boxes.T
    boxes = np.stack([width - x2, y1, width - x1, y2], -1) * sample.present[:, None]
    return dataclasses.replace(
        sample,
        frames=sample.frames[:, :, ::-1],
        masks=sample.masks[:, :, ::-1],
        boxes=boxes,
        sentences=tuple(map(swap_sides, sample.sentences)),
    )


def too_narrow(height: int, width: int) -> bool:
    """Whether the released code skips a picture: scaled to a long side of 640 pixels, its short side is below 200."""
    return min(height, width) * 640 < 200 * max(height, width)


def pseudo_clip(sample: clips.Sample, rng: np.random.Generator, num_frames: int) -> clips.Sample:
    """A picture (T = E = 1) -> a clip of it and its warped, blurred and recoloured copies, in random order.

    As in the released code's joint training with RefCOCO, which uses imgaug.
    """
    [frame], [mask] = sample.frames, sample.masks
    copies = [(frame, mask), *(_warp(_recolour(frame, rng), mask, rng) for _ in range(num_frames - 1))]
    copies = [copies[i] for i in rng.permutation(num_frames)]
    frames, masks = (np.stack(x) for x in zip(*copies))
    boxes, present = clips.boxes_of_masks(masks)
    return check(dataclasses.replace(sample, frames=frames, masks=masks, boxes=boxes, present=present))


def swap_sides(sentence: str) -> str:
    """Swaps left and right as whole words, also in 'leftmost' or 'right-hand'; keeps the case.

    The released code swaps them inside other words too, which turns 'bright' into 'bleft'.
    """

    def other(match: re.Match) -> str:
        word = match[0]
        swapped = 'right' if word.lower() == 'left' else 'left'
        return swapped.upper() if word.isupper() else swapped.title() if word[0].isupper() else swapped

    return SIDES.sub(other, sentence)


def _crop_side(rng: np.random.Generator, side: int, bounds: tuple[int, int]) -> int:
    return int(rng.integers(min(bounds[0], side), min(bounds[1], side) + 1))


def _recolour(frame: UInt8[np.ndarray, 'h w 3'], rng: np.random.Generator) -> UInt8[np.ndarray, 'h w 3']:
    """Shifts brightness by up to 40 levels, or hue and saturation by up to 5, or (half of the time) both."""
    brightness, hue = [(True, False), (False, True), (True, True), (True, True)][rng.integers(4)]
    if hue:
        hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV).astype(np.int16)
        hsv[..., :2] += rng.integers(-5, 6, 2, dtype=np.int16)
        hsv[..., 0] %= 180
        frame = cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
    if brightness:
        frame = np.clip(frame.astype(np.int16) + rng.integers(-40, 41), 0, 255).astype(np.uint8)
    return frame


def _warp(
    frame: UInt8[np.ndarray, 'h w 3'], mask: Bool[np.ndarray, 'h w'], rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, 'h w 3'], Bool[np.ndarray, 'h w']]:
    """Perspective (corners move inwards by about 0.08 of the sides), rotation by up to 20 degrees and a shift by up
    to a tenth of the sides; a quarter of the frames get motion blur in a random direction."""
    height, width = mask.shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float32)
    moved = corners + inwards * np.abs(rng.normal(0, 0.08, (4, 2))).clip(max=0.4) * [width, height]
    perspective = cv2.getPerspectiveTransform(moved.astype(np.float32), corners)
    turn = np.eye(3)
    turn[:2] = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-20, 20), 1)
    turn[:2, 2] += rng.uniform(-0.1, 0.1, 2) * [width, height]
    matrix = turn @ perspective
    frame = cv2.warpPerspective(frame, matrix, (width, height), flags=cv2.INTER_LINEAR)
    mask = cv2.warpPerspective(mask.astype(np.uint8), matrix, (width, height), flags=cv2.INTER_NEAREST) > 0
    if rng.random() < 0.25:
        size = int(rng.choice((9, 11)))
        kernel: np.ndarray = np.zeros((size, size), np.float32)
        kernel[size // 2] = 1 / size
        kernel = cv2.warpAffine(
            kernel, cv2.getRotationMatrix2D((size // 2, size // 2), rng.uniform(0, 360), 1), (size, size)
        )
        frame = cv2.filter2D(frame, -1, kernel / kernel.sum())
    return frame, mask


def _distort(frame: UInt8[np.ndarray, 'h w 3'], rng: np.random.Generator) -> UInt8[np.ndarray, 'h w 3']:
    image = frame.astype(np.float32)
    if rng.random() < 0.5:
        image = np.clip(image + np.float32(rng.uniform(-32, 32)), 0, 255)
    contrast_first = rng.random() < 0.5
    contrast = rng.uniform(0.8, 1.2) if rng.random() < 0.5 else 1
    saturation = rng.uniform(0.8, 1.2) if rng.random() < 0.5 else 1
    if contrast_first:
        image = image * np.float32(contrast)
    if saturation != 1:
        # Saturation is (V - min) / V, where V and min are the largest and smallest channel. At constant hue and V,
        # scaling it scales each channel's distance from V.
        value = np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2])[..., None]
        image = value - (value - image) * np.float32(saturation)
    if not contrast_first:
        image = image * np.float32(contrast)
    if rng.random() < 0.2:
        image = image[..., rng.permutation(3)]
    # The released code casts without clipping, so bright pixels wrap around to dark ones.
    return np.clip(image, 0, 255).astype(np.uint8)
