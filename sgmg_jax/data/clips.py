"""Clips: which frames of a video, what the sample holds, and its arrays at a static shape.

Axis letters: T frames, H W pixels of the static shape, h w pixels of the unpadded clip, E sentences, L tokens,
R = E T masks, those of a sentence one after the other.
"""
from collections.abc import Sequence
import dataclasses

import cv2
import numpy as np
from PIL import Image

from sgmg_jax import types
from sgmg_jax.data import metadata, records

# ImageNet, of RGB in [0, 1].
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
MOST_STRETCH = 16  # long side over short side of a frame; resized, a strip of pixels would take any memory
NORMALISED = ((np.arange(256, dtype=np.float32)[None, :, None] / 255 - MEAN) / STD)  # [1 256 3]


def training_index(videos: Sequence[metadata.Video], num_frames: int, sentences: int = 1,
                   consecutive: bool = False) -> np.ndarray:
    """One row for each clip of an epoch: (video, expression, centre), all indices; int32 [N 3].

    As in the released code, centres are every `num_frames`-th frame of a video from its first; where only some
    frames are annotated (A2D-Sentences), these. Expressions tagged 'crowd' (RefCOCO) are left out.

    Args:
        consecutive: clips are windows of frames that follow each other, as SOC trains, and their first stands for the
          centre: windows without overlap, but for the last, which is moved back to be full.
        sentences: that are asked of a clip at most. If several, there is one row for a video and centre; its
          expression, the first, stands for all.

    Raises:
        ValueError: for an expression without object or a video without masks; for several sentences where frames are
            annotated for one object each.
    """
    index = []
    for number, video in enumerate(videos):
        if sentences > 1 and video.mask_places is not None:
            raise ValueError(f'config.data.sentences = {sentences}: video {video.name} has frames that are annotated '
                             'for one object each, of which one sentence can be asked.')
        for position, expression in enumerate(video.expressions):
            if expression.object_id < 0 or not video.has_masks:
                raise ValueError(f'video {video.name}, expression {expression.id}: has no ground truth to '
                                 'train on. Train on a split that has it.')
            if 'crowd' in expression.tags:
                continue
            length = len(video.frame_names)
            centres = range(0, length, num_frames) if video.mask_places is None else (
                video.annotated_frames(expression.object_id))
            if consecutive and video.mask_places is None:
                centres = [max(0, min(first, length - num_frames)) for first in centres]
            if sentences == 1 or position == 0:
                index += [(number, position, centre) for centre in centres]
    return np.array(index, np.int32).reshape(-1, 3)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Some frames of a video and the objects that sentences refer to, before they become arrays.

    frames: [T h w 3] uint8 RGB.
    masks: [R h w] bool, of each sentence's object in each frame.
    boxes: [R 4] float32, x1 y1 x2 y2 in pixels, the last column and row inclusive; zeros where absent.
    present: [R] bool, whether the box has an extent.
    sentences: E, as written.
    annotated: the one frame that masks, boxes and present are of (A2D-Sentences); R is E then. None: of all.
    """
    frames: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    present: np.ndarray
    sentences: tuple[str, ...]
    annotated: int | None = None


def sample_frames(rng: np.random.Generator, length: int, centre: int, num_frames: int,
                  reverse_probability: float = 0.3) -> np.ndarray:
    """Frame indices [T] of a training clip, as the released code draws them.

    The centre, one neighbour one to three frames before and one after (at the ends of the video the
    same frame may come twice), the rest from outside of these; ascending, or reversed with
    `reverse_probability`. The released code has two quirks: the frame after the centre may be drawn
    again, and two frames would become three; here two are the centre and one of its neighbours.

    Args:
        length: frames of the video.
        centre: index of the frame that is always taken.
        num_frames: T.
        reverse_probability: 0.3 for Ref-YouTube-VOS, 0 for the other benchmarks.
    """
    chosen = [centre]
    if num_frames > 1:
        before, after = rng.integers(1, 4, size=2)
        near = [max(0, centre - before), min(length - 1, centre + after)]
        chosen += near if num_frames > 2 else [near[rng.integers(2)]]
    missing = num_frames - len(chosen)
    if missing > 0:
        outside = np.r_[0:min(chosen), max(chosen):length]
        if len(outside) > missing:
            more = rng.choice(outside, missing, replace=False)
        elif length >= missing:
            more = rng.choice(length, missing, replace=False)
        else:  # A video shorter than the clip: every frame, and some again.
            again = missing - length
            more = np.r_[rng.choice(length, again, replace=again > length), 0:length]
        chosen += more.tolist()
    frames = np.sort(np.array(chosen, np.int32))
    return frames[::-1].copy() if rng.random() < reverse_probability else frames


def consecutive_frames(first: int, length: int, num_frames: int) -> np.ndarray:
    """Frame indices [T] from one on, as SOC trains; of a video that ends before, its last frame again."""
    return np.minimum(np.arange(first, first + num_frames), length - 1)


def annotated_window(frame: int, length: int, num_frames: int, middle: bool = False) -> tuple[np.ndarray, int]:
    """Frame indices [T] around an annotated frame, and where in them it is.

    As A2D-Sentences and JHMDB-Sentences have it: half of the frames before, the rest from it on, the video's first
    and last frame again where it ends; of the frames that are alike the first is the annotated one, or always the one
    in the `middle`.
    """
    first = frame - num_frames // 2
    indices = np.clip(np.arange(first, first + num_frames), 0, length - 1)
    return indices, num_frames // 2 if middle else int(np.argmax(indices == frame))


def load_sample(record: records.Record, expressions: Sequence[metadata.Expression], indices: np.ndarray,
                centre: int, position: int | None = None) -> Sample:
    """Decodes the frames at `indices` [T], the centre among them, and finds the objects of the expressions in them.

    Where only the centre is annotated, `position` says which of the indices it is, by default the first that fits.
    """
    annotated = None
    if record.video.mask_places is None:
        maps = record.decode_masks(indices)
        masks = np.concatenate([maps == expression.object_id for expression in expressions])
    else:
        masks = np.stack([record.decode_object(expression.object_id, centre) for expression in expressions])
        if len(record.video.frame_names) > 1:
            annotated = int(np.flatnonzero(indices == centre)[0]) if position is None else position
    boxes, present = boxes_of_masks(masks)
    return Sample(record.decode_frames(indices), masks, boxes, present, tuple(e.text for e in expressions), annotated)


def visible(sample: Sample) -> Sample:
    """Without the sentences whose object is in no frame."""
    count = len(sample.sentences)
    seen = sample.present.reshape(count, -1).any(1)
    masks, boxes, present = (x.reshape(count, -1, *x.shape[1:])[seen].reshape(-1, *x.shape[1:])
                             for x in (sample.masks, sample.boxes, sample.present))
    return dataclasses.replace(sample, masks=masks, boxes=boxes, present=present,
                               sentences=tuple(s for s, there in zip(sample.sentences, seen) if there))


def boxes_of_masks(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [R 4] float32 around masks [R h w] bool, and whether there is a pixel at all [R].

    x1 y1 x2 y2 are the first and the last column and row that hold the object, both inclusive; the
    released code adds no 1. Zeros where the mask is empty.
    """
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if rows.size:
            box[:] = columns[0], rows[0], columns[-1], rows[-1]
    return boxes, masks.any((1, 2))


def check_size(height: int, width: int) -> None:
    """Raises ValueError for frames without pixels, or whose long side is more than MOST_STRETCH times the short one."""
    if min(height, width) < 1 or max(height, width) > MOST_STRETCH * min(height, width):
        raise ValueError(f'frames of {width}x{height} pixels: the long side must be at most {MOST_STRETCH} times the '
                         'short one. Crop them.')


def resized_size(height: int, width: int, short_side: int, max_side: int | None = None) -> tuple[int, int]:
    """(height, width) with the short side at `short_side`, the long one at most `max_side`.

    The rule of torchvision and DETR: the long side is cut to a whole number, and where `max_side`
    binds, the short side is rounded so that the long one fits.

    Raises:
        ValueError: for frames that `check_size` refuses.
    """
    check_size(height, width)
    short, long = min(height, width), max(height, width)
    if max_side is not None and long / short * short_side > max_side:
        short_side = round(max_side * short / long)
    if short == short_side:
        return height, width
    other = int(short_side * long / short)
    return (short_side, other) if height <= width else (other, short_side)


def normalise(frames: np.ndarray) -> np.ndarray:
    """uint8 [T h w 3] RGB to float32 with ImageNet's mean and standard deviation removed."""
    # Looked up, because there are only 256 values: ten times faster than computing each pixel.
    return cv2.LUT(frames.reshape(-1, *frames.shape[2:]), NORMALISED).reshape(frames.shape)


def prepare_clip(frames: np.ndarray, short_side: int, max_side: int | None = None
                 ) -> tuple[np.ndarray, tuple[int, int]]:
    """Frames for evaluation, as the benchmarks' protocol has them.

    Args:
        frames: [T H W 3] uint8 RGB.
        short_side: pixels of the resized short side (360 for Ref-YouTube-VOS and Ref-DAVIS17).
        max_side: bound of the long side; None for none (640 for A2D-Sentences and JHMDB-Sentences).

    Returns:
        Normalised frames [T h w 3] float32, resized by Pillow's antialiased bilinear filter as
        torchvision does on images, and (h, w). Not padded.
    """
    height, width = resized_size(*frames.shape[1:3], short_side, max_side)
    if (height, width) != frames.shape[1:3]:
        bilinear = Image.Resampling.BILINEAR
        frames = np.stack([np.asarray(Image.fromarray(frame).resize((width, height), bilinear))
                           for frame in frames])
    return normalise(frames), (height, width)


def to_example(sample: Sample, text: types.Text, frame_size: tuple[int, int]) -> types.Example:
    """Arrays of one clip, without the axis B, and with E in the place of N; padded bottom and right.

    Args:
        sample: at most as large as `frame_size`.
        text: of its sentences, and of as many empty ones as fill up the static E [E L].
        frame_size: (H, W).
    """
    height, width = sample.frames.shape[1:3]
    count, given = len(text.tokens), len(sample.sentences)
    frames = np.zeros((len(sample.frames), *frame_size, 3), np.float32)
    frames[:, :height, :width] = normalise(sample.frames)
    valid = np.zeros(frames.shape[:3], bool)
    valid[:, :height, :width] = True
    x1, y1, x2, y2 = sample.boxes.T
    own_boxes = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], -1) / [width, height, width, height]
    rows = len(sample.masks)
    shape = count, rows // given
    masks, boxes, present = (np.zeros((shape[0] * shape[1], *of_row), kind) for of_row, kind in (
        (frame_size, bool), ((4,), np.float32), ((), bool)))
    masks[:rows, :height, :width] = sample.masks
    boxes[:rows] = own_boxes * sample.present[:, None]
    present[:rows] = sample.present
    masks, boxes, present = (x.reshape(*shape, *x.shape[1:]) for x in (masks, boxes, present))
    size = np.array([height, width], np.int32)
    return types.Example(
        clip=types.Clip(frames=frames, valid=valid, size=size,
                        annotated=None if sample.annotated is None else np.array(sample.annotated, np.int32)),
        text=text,
        targets=types.Targets(masks, boxes, present, size=np.tile(size, (count, 1)), asked=np.arange(count) < given))
