"""Clips: the choice of frames, the sample before padding, and its arrays at a static shape.

Axis letters: T frames, H W pixels of the static shape, h w pixels of the unpadded clip, E sentences, L tokens,
N rows of the index, R = E T masks, grouped by sentence.
"""

from collections.abc import Sequence
import dataclasses

from jaxtyping import Bool, Float32, Int, Int32, UInt8
import numpy as np
from PIL import Image

from sgmg_jax import types
from sgmg_jax.data import metadata

MOST_STRETCH = 16  # long side over short side of a frame: a resized strip of pixels could take any amount of memory


def training_index(
    videos: Sequence[metadata.Video], num_frames: int, sentences: int = 1, consecutive: bool = False
) -> Int32[np.ndarray, 'N 3']:
    """One row per clip of an epoch: the indices (video, expression, centre).

    As in the released code, the centres are every `num_frames`-th frame of a video, from the first. If only some
    frames are annotated (A2D-Sentences), they are the centres. Expressions tagged 'crowd' (RefCOCO) are left out.
    Sentences without target (MeViS) have clips as others do.

    Args:
        consecutive: clips are windows of consecutive frames, as SOC trains, and `centre` is the window's first frame.
            Windows do not overlap, except that the last is moved back to be full.
        sentences: maximum number per clip. If above 1, there is one row per video and centre, whose expression is
            the first and stands for all.

    Raises:
        ValueError: an expression has no object or a video has no masks; `sentences` is above 1, but each frame is
            annotated for one object only.
    """
    index: list[tuple[int, int, int]] = []
    for number, video in enumerate(videos):
        if sentences > 1 and video.mask_places is not None:
            raise ValueError(
                f'config.data.sentences = {sentences}: each frame of video {video.name} is annotated for '
                'one object only. Set it to 1.'
            )
        for position, expression in enumerate(video.expressions):
            if expression.objects is None or not video.has_masks:
                raise ValueError(
                    f'video {video.name}, expression {expression.id}: has no ground truth to '
                    'train on. Train on a split that has it.'
                )
            if 'crowd' in expression.tags:
                continue
            length = len(video.frame_names)
            centres = (
                list(range(0, length, num_frames))
                if video.mask_places is None
                else video.annotated_frames(expression.object_id)
            )
            if consecutive and video.mask_places is None:
                centres = [max(0, min(first, length - num_frames)) for first in centres]
            if sentences == 1 or position == 0:
                index += [(number, position, centre) for centre in centres]
    return np.array(index, np.int32).reshape(-1, 3)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Some frames of a video and the objects that sentences refer to, before padding.

    frames: RGB.
    masks: of each sentence's object in each frame; of several objects their union.
    boxes: x1 y1 x2 y2 in pixels, the last column and row inclusive; zeros where absent.
    present: whether the box has an extent.
    sentences: E, as written.
    annotated: index of the only frame that has masks, boxes and present (A2D-Sentences); then R = E. None: all have.
    untargeted: which of the E sentences refer to nothing (MeViS), so that absence is what is learned; empty: none.
    """

    frames: UInt8[np.ndarray, 'T h w 3']
    masks: Bool[np.ndarray, 'R h w']
    boxes: Float32[np.ndarray, 'R 4']
    present: Bool[np.ndarray, ' R']
    sentences: tuple[str, ...]
    annotated: int | None = None
    untargeted: tuple[bool, ...] = ()


def sample_frames(
    rng: np.random.Generator, length: int, centre: int, num_frames: int, reverse_probability: float | int = 0.3
) -> Int32[np.ndarray, ' T']:
    """Frame indices of a training clip, drawn as in the released code.

    The centre, one frame one to three before it and one as far after it (clamped to the video, so a frame may
    repeat), and the rest from outside these; ascending, or reversed with `reverse_probability`. The released code has
    two quirks: the frame after the centre may be drawn again (kept), and T = 2 would give three frames (here the
    centre and one of its neighbours).

    Args:
        length: frames of the video.
        centre: index of the frame that is always included.
        num_frames: T.
        reverse_probability: 0.3 for Ref-YouTube-VOS, 0 for the other data sets.
    """
    chosen = [centre]
    if num_frames > 1:
        before, after = rng.integers(1, 4, size=2)
        near = [max(0, centre - before), min(length - 1, centre + after)]
        chosen += near if num_frames > 2 else [near[rng.integers(2)]]
    missing = num_frames - len(chosen)
    more: np.ndarray
    if missing > 0:
        outside = np.r_[0 : min(chosen), max(chosen) : length]
        if len(outside) > missing:
            more = rng.choice(outside, missing, replace=False)
        elif length >= missing:
            more = rng.choice(length, missing, replace=False)
        else:  # The video is shorter than the clip: every frame once, and some again.
            again = missing - length
            more = np.r_[rng.choice(length, again, replace=again > length), 0:length]
        chosen += more.tolist()
    frames = np.sort(np.array(chosen, np.int32))
    return frames[::-1].copy() if rng.random() < reverse_probability else frames


def consecutive_frames(first: int, length: int, num_frames: int) -> Int[np.ndarray, ' T']:
    """Consecutive frame indices from `first`, as SOC trains; the last frame repeats where the video ends early."""
    return np.minimum(np.arange(first, first + num_frames), length - 1)


def annotated_window(
    frame: int, length: int, num_frames: int, middle: bool = False
) -> tuple[Int[np.ndarray, ' T'], int]:
    """Frame indices around an annotated frame, and its position among them.

    The protocol of A2D-Sentences and JHMDB-Sentences: half of the frames lie before it; beyond the ends of the video
    the first or last frame repeats. If the annotated frame repeats, its position is the first copy; with `middle` it
    is always the clip's middle.
    """
    first = frame - num_frames // 2
    indices = np.clip(np.arange(first, first + num_frames), 0, length - 1)
    return indices, num_frames // 2 if middle else int(np.argmax(indices == frame))


def visible(sample: Sample) -> Sample:
    """The sample without the sentences whose object is in no frame; it keeps those that refer to nothing."""
    count = len(sample.sentences)
    seen = np.array([here.any() for here in np.split(sample.present, count)])
    if sample.untargeted:
        seen |= np.array(sample.untargeted)
    masks, boxes, present = (
        x.reshape(count, -1, *x.shape[1:])[seen].reshape(-1, *x.shape[1:])
        for x in (sample.masks, sample.boxes, sample.present)
    )
    return dataclasses.replace(
        sample,
        masks=masks,
        boxes=boxes,
        present=present,
        sentences=tuple(s for s, there in zip(sample.sentences, seen) if there),
        untargeted=tuple(u for u, there in zip(sample.untargeted, seen) if there),
    )


def boxes_of_masks(masks: Bool[np.ndarray, 'R h w']) -> tuple[Float32[np.ndarray, 'R 4'], Bool[np.ndarray, ' R']]:
    """Boxes around masks, and whether each mask has a pixel.

    x1 y1 x2 y2 are the first and the last column and row of the object, both inclusive; like the released code, this
    adds no 1. Zeros where the mask is empty.
    """
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if rows.size:
            box[:] = columns[0], rows[0], columns[-1], rows[-1]
    return boxes, np.any(masks, axis=(1, 2))


def check_size(height: int, width: int) -> None:
    """Raises ValueError for empty frames, and if the long side is more than MOST_STRETCH times the short one."""
    if min(height, width) < 1 or max(height, width) > MOST_STRETCH * min(height, width):
        raise ValueError(
            f'frames of {width}x{height} pixels: the long side must be at most {MOST_STRETCH} times the '
            'short one. Crop them.'
        )


def resized_size(height: int, width: int, short_side: int, max_side: int | None = None) -> tuple[int, int]:
    """(height, width) with the short side at `short_side`, the long one at most `max_side`.

    The rule of torchvision and DETR: the long side is truncated to a whole number; where `max_side` binds, the short
    side is rounded so that the long one fits.

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


def prepare_clip(
    frames: UInt8[np.ndarray, 'T H W 3'], short_side: int, max_side: int | None = None
) -> tuple[UInt8[np.ndarray, 'T h w 3'], tuple[int, int]]:
    """Frames for evaluation, by the protocol of the data sets.

    Args:
        frames: RGB, of any size.
        short_side: pixels of the resized short side (360 for Ref-YouTube-VOS and Ref-DAVIS17).
        max_side: bound of the long side; None for none (640 for A2D-Sentences and JHMDB-Sentences).

    Returns:
        Frames resized by Pillow's antialiased bilinear filter, as torchvision resizes images, and (h, w). Not padded.
    """
    height, width = frames.shape[1:3]
    size = resized_size(height, width, short_side, max_side)
    if size != (height, width):
        resized = np.empty((len(frames), *size, 3), np.uint8)
        for small, frame in zip(resized, frames):
            small[:] = np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR))
        return resized, size
    return frames, size


def to_example(sample: Sample, text: types.Text, frame_size: tuple[int, int]) -> types.Example:
    """Arrays of one clip (B = 1, N = E), padded at the bottom and right.

    Args:
        sample: at most as large as `frame_size`.
        text: [E L] tokens of its sentences, padded along E with empty sentences.
        frame_size: (H, W).
    """
    height, width = sample.frames.shape[1:3]
    count, given = len(text.tokens), len(sample.sentences)
    frames = np.zeros((len(sample.frames), *frame_size, 3), np.uint8)
    frames[:, :height, :width] = sample.frames
    valid = np.zeros(frames.shape[:3], bool)
    valid[:, :height, :width] = True
    x1, y1, x2, y2 = sample.boxes.T
    own_boxes = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], -1) / [width, height, width, height]
    rows = len(sample.masks)
    shape = count, rows // given
    masks, boxes, present = (
        np.zeros((shape[0] * shape[1], *of_row), kind)
        for of_row, kind in ((frame_size, bool), ((4,), np.float32), ((), bool))
    )
    masks[:rows, :height, :width] = sample.masks
    boxes[:rows] = own_boxes * sample.present[:, None]
    present[:rows] = sample.present
    masks, boxes, present = (x.reshape(*shape, *x.shape[1:]) for x in (masks, boxes, present))
    size = np.array([height, width], np.int32)
    return types.Example(
        clip=types.Clip(
            frames=frames[None],
            valid=valid[None],
            size=size[None],
            annotated=None if sample.annotated is None else np.array([sample.annotated], np.int32),
        ),
        text=text,
        targets=types.Targets(masks, boxes, present, size=np.tile(size, (count, 1)), asked=np.arange(count) < given),
    )
