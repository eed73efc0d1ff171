"""One clip: its frames, masks and sentences.

Axis letters: T frames, H W pixels, K objects.
"""

import dataclasses
import numbers
import typing

from jaxtyping import UInt8
import numpy as np

from sgmg_jax.synthetic import drawing, layout
from sgmg_jax.synthetic.sentences import Expression, make_expressions
from sgmg_jax.synthetic.words import ObjectDescription, pick

MIN_FRAMES, MAX_FRAMES = 5, 1000
MIN_SIDE, MAX_SIDE = 64, 2048
MAX_PIXELS = 2**27  # per video


@dataclasses.dataclass(frozen=True)
class SyntheticVideo:
    """A clip with its ground truth.

    frames: RGB.
    masks: 0 is background, k the visible pixels of object k.
    objects: K descriptions; object k is objects[k - 1].
    """

    frames: UInt8[np.ndarray, 'T H W 3']
    masks: UInt8[np.ndarray, 'T H W']
    objects: tuple[ObjectDescription, ...]
    expressions: tuple[Expression, ...]


@typing.no_type_check  # checks its own arguments
def make_video(
    seed: int, num_frames: int = 8, size: tuple[int, int] = (128, 128), unseen: bool = False, *, kind: str | None = None
) -> SyntheticVideo:
    """Draws one clip of 3 or 4 objects; deterministic in its arguments.

    Objects scale with the shorter side. They move 3 to 6 pixels per frame in a frame of 128, and less in a long clip:
    at most 0.36 of the shorter side in total.

    Args:
        seed: not negative.
        num_frames: 5 to 1000.
        size: H and W, 64 to 2048 each.
        unseen: whether at least one object has a held-out (colour, shape); otherwise none has.
        kind: 'attribute', 'motion' or 'relation', the word that its sentences need; 'alike': all objects look alike and
            only motion tells them apart; None to draw one of the first three.

    Raises:
        ValueError: an argument is out of range, or a clip of this seed and size cannot be laid out.
    """
    check(seed, num_frames, size, kind)
    rng = np.random.default_rng([seed, int(unseen)])
    drawn = pick(rng, layout.KINDS)
    kind = kind or drawn
    event = pick(rng, layout.EVENTS)
    if kind == 'alike':  # an object that passes behind another or leaves has no motion of its own
        event = 'none'
    for _ in range(5000):
        bodies = layout.lay_out(rng, kind, event, num_frames, size, unseen)
        if bodies is None:
            continue
        stamps = [drawing.stamp(body) for body in bodies]
        masks = drawing.draw(bodies, stamps, np.zeros((num_frames, *size, 3), np.uint8))[1]
        if not drawing.well_visible(masks, stamps, event):
            continue
        objects = tuple(body.words for body in bodies)
        expressions = make_expressions(rng, kind, objects, drawing.centroids(masks, len(bodies)), size)
        if expressions is None:
            continue
        # Objects are in order of depth; shuffled ids do not reveal it.
        ids = rng.permutation(len(bodies)) + 1
        frames = drawing.draw(bodies, stamps, drawing.background(rng, num_frames, size))[0]
        return SyntheticVideo(
            frames=frames,
            masks=np.concatenate([[0], ids]).astype(np.uint8)[masks],
            objects=tuple(objects[k] for k in np.argsort(ids)),
            expressions=tuple(dataclasses.replace(e, object_id=int(ids[e.object_id - 1])) for e in expressions),
        )
    raise ValueError(
        f'No layout found for seed={seed}, num_frames={num_frames}, size={size}, '
        f'unseen={unseen}: choose another seed or a size closer to a square.'
    )


@typing.no_type_check  # checks its own arguments
def check(seed: int, num_frames: int, size: tuple[int, int], kind: str | None = None) -> None:
    """Raises ValueError for arguments of `make_video` that are out of range."""

    def is_whole(value, low, high=float('inf')):
        return isinstance(value, numbers.Integral) and not isinstance(value, bool) and low <= value <= high

    if not is_whole(seed, 0):
        raise ValueError(f'seed={seed!r:.100}: must be a whole number and not negative.')
    if not is_whole(num_frames, MIN_FRAMES, MAX_FRAMES):
        raise ValueError(
            f'num_frames={num_frames!r:.100}: must be a whole number from {MIN_FRAMES} (motion needs '
            f'several frames) to {MAX_FRAMES}.'
        )
    if not isinstance(size, tuple | list) or len(size) != 2 or not all(is_whole(x, MIN_SIDE, MAX_SIDE) for x in size):
        raise ValueError(f'size={size!r:.100}: must be a height and a width of {MIN_SIDE} to {MAX_SIDE} pixels.')
    if kind is not None and not (isinstance(kind, str) and kind in layout.KINDS):
        raise ValueError(f'kind={kind!r:.100}: must be one of {", ".join(layout.KINDS)}.')
    if num_frames * size[0] * size[1] > MAX_PIXELS:
        raise ValueError(
            f'num_frames={num_frames}, size={size}: a video of more than {MAX_PIXELS:,} pixels. Take '
            'fewer frames or smaller ones.'
        )
