"""A procedural world: short videos of several moving shapes, and sentences that each name one of them.

    python -m sgmg_jax.data.synthetic --out=data/synthetic_raw --train=600 --valid=40

writes it in the raw layout of Ref-YouTube-VOS. From Python, `make_video(seed)` gives one clip.

Every sentence is true of exactly one object of its clip. Clips come in three kinds, so that every
kind of word has to be understood:

attribute  all objects look different, some in one word only: 'the small dotted red star'.
motion     two or three objects look exactly alike and move differently: 'the red star moving left'.
           The clip is symmetric in time around its middle, where positions are independent of
           direction, and an axis without motion is drawn from the positions that motion would visit.
           So a frame of unknown time says nothing about the directions.
relation   two objects share the named words on opposite sides of a third, the anchor:
           'the star left of the blue square'. The three move together or stand still.

In about one clip of five an object passes behind another; in one of six one leaves and returns.

Axis letters: T frames, H W pixels, K objects.
"""
import argparse
from collections.abc import Sequence
import dataclasses
import hashlib
import itertools
import json
import numbers
import os
import pathlib
import shutil
import sys
import tempfile

import cv2
import numpy as np
from PIL import Image
import tqdm

from sgmg_jax import commands

COLOURS = {'red': (222, 38, 38), 'green': (44, 160, 52), 'blue': (46, 84, 232),
           'yellow': (246, 214, 34), 'purple': (158, 44, 196), 'cyan': (58, 222, 232)}
SHAPES = ('circle', 'square', 'triangle', 'star', 'cross', 'ring')
SIZES = {'small': (22., 28.), 'large': (38., 48.)}  # Pixels across, in a frame of 128.
TEXTURES = ('plain', 'striped', 'dotted')
MOTIONS = {'left': (-1, 0), 'right': (1, 0), 'up': (0, -1), 'down': (0, 1), 'still': (0, 0)}
AWAY = 'away and back'  # Leaves the frame and returns: no sentence names it as a motion.
RELATIONS = {'left': (-1, 0), 'right': (1, 0), 'above': (0, -1), 'below': (0, 1)}

# Combinations that no training clip shows; each colour and each shape is missing in one only.
HELD_OUT = (('red', 'triangle'), ('green', 'star'), ('blue', 'ring'),
            ('yellow', 'circle'), ('purple', 'cross'), ('cyan', 'square'))

MIN_FRAMES, MAX_FRAMES = 5, 1000
MIN_SIDE, MAX_SIDE = 64, 2048
MAX_PIXELS = 2 ** 27  # of a video
MAX_VIDEOS = 100_000  # of a split
MIN_VISIBLE = 30  # Pixels, in a frame of 128, for an object to count as visible.
RELATION_MARGIN = .12  # Of the frame's side along the relation's axis.
RELATION_DOMINANCE = 1.15  # Offset along the relation's axis over the offset across it.

_KINDS = {'attribute': .5, 'motion': .25, 'relation': .25}
_TEXTURES = {'plain': .5, 'striped': .25, 'dotted': .25}
_EVENTS = {'cross': .20, 'away': .17, 'none': .63}
_SPEED = (3., 6.)  # Pixels a frame, in a frame of 128.
_MAX_TRAVEL = .36  # Of the shorter side, over the whole clip.
_ATTRIBUTES = ('size', 'texture', 'colour', 'shape')  # In the order English puts them.
_SUBSETS = tuple(names for n in range(5) for names in itertools.combinations(_ATTRIBUTES, n))
_SUBSET_WEIGHT = (.05, .5, 1., .3, .1)  # By the number of attributes named.
_NAMED = {'size': .5, 'texture': .5, 'colour': 4., 'shape': 3.}  # How readily an attribute is named, or told apart by.
_MOVING = ('moving {}', 'that moves {}', 'going {}')
_STANDING = ('standing still', 'that stands still', 'that does not move')
_BESIDE = ('{} of', 'to the {} of', 'on the {} of')
_OVER = ('{}', 'that is {}', 'placed {}')


@dataclasses.dataclass(frozen=True)
class ObjectDescription:
    """The words that are true of an object over the whole clip.

    motion: a key of MOTIONS, or AWAY.
    """
    size: str
    texture: str
    colour: str
    shape: str
    motion: str = 'still'

    @property
    def look(self) -> tuple[str, str, str, str]:
        """What a single frame shows."""
        return self.size, self.texture, self.colour, self.shape


@dataclasses.dataclass(frozen=True)
class Expression:
    """A sentence and the object it names.

    object_id: 1 to K, the object's value in the masks.
    tags: the kind of word needed, 'attribute', 'motion' or 'relation'; then 'unseen' if the
        object's (colour, shape) is in HELD_OUT.
    """
    text: str
    object_id: int
    tags: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SyntheticVideo:
    """A clip with its ground truth.

    frames: uint8 [T H W 3], RGB.
    masks: uint8 [T H W]; 0 is background, k the visible pixels of object k.
    objects: K descriptions; object k is objects[k - 1].
    """
    frames: np.ndarray
    masks: np.ndarray
    objects: tuple[ObjectDescription, ...]
    expressions: tuple[Expression, ...]


@dataclasses.dataclass
class _Body:
    """An object while its clip is being laid out; centres [T 2] are (x, y) in pixels."""
    words: ObjectDescription
    diameter: float
    angle: float
    phase: float
    centres: np.ndarray | None = None

    @property
    def radius(self) -> float:
        return self.diameter / 2


def make_video(seed: int, num_frames: int = 8, size: tuple[int, int] = (128, 128),
               unseen: bool = False) -> SyntheticVideo:
    """Draws one clip of 3 or 4 objects; the same arguments always give the same bytes.

    Objects scale with the shorter side. They move 3 to 6 pixels a frame in a frame of 128, less
    where so long a clip would carry them over more than 0.36 of the shorter side.

    Args:
        seed: not negative.
        num_frames: 5 to 1000.
        size: H and W, 64 to 2048 each.
        unseen: whether one object or more is of a held-out (colour, shape); otherwise none is.

    Raises:
        ValueError: an argument is out of range, or a clip of this seed and size cannot be laid out.
    """
    _check(seed, num_frames, size)
    rng = np.random.default_rng([seed, int(unseen)])
    kind = _pick(rng, _KINDS)
    event = _pick(rng, _EVENTS)
    for _ in range(5000):
        bodies = _lay_out(rng, kind, event, num_frames, size, unseen)
        if bodies is None:
            continue
        stamps = [_stamp(body) for body in bodies]
        masks = _draw(bodies, stamps, np.zeros((num_frames, *size, 3), np.uint8))[1]
        if not _well_visible(masks, stamps, event):
            continue
        objects = tuple(body.words for body in bodies)
        expressions = _expressions(rng, kind, objects, _centroids(masks, len(bodies)), size)
        if expressions is None:
            continue
        # Depth is the order of drawing; ids are dealt anew so that they say nothing about it.
        ids = rng.permutation(len(bodies)) + 1
        frames = _draw(bodies, stamps, _background(rng, num_frames, size))[0]
        return SyntheticVideo(
            frames=frames,
            masks=np.concatenate([[0], ids]).astype(np.uint8)[masks],
            objects=tuple(objects[k] for k in np.argsort(ids)),
            expressions=tuple(dataclasses.replace(e, object_id=int(ids[e.object_id - 1]))
                              for e in expressions))
    raise ValueError(f'No layout found for seed={seed}, num_frames={num_frames}, size={size}, '
                     f'unseen={unseen}: take another seed or a squarer size.')


def _check(seed: int, num_frames: int, size: tuple[int, int]) -> None:
    """Raises ValueError for a clip that cannot be."""
    def is_whole(value, low, high=float('inf')):
        return isinstance(value, numbers.Integral) and not isinstance(value, bool) and low <= value <= high

    if not is_whole(seed, 0):
        raise ValueError(f'seed={seed!r:.100}: must be a whole number and not negative.')
    if not is_whole(num_frames, MIN_FRAMES, MAX_FRAMES):
        raise ValueError(f'num_frames={num_frames!r:.100}: must be a whole number from {MIN_FRAMES}, as motion needs, '
                         f'to {MAX_FRAMES}.')
    if not isinstance(size, tuple | list) or len(size) != 2 or not all(is_whole(x, MIN_SIDE, MAX_SIDE) for x in size):
        raise ValueError(f'size={size!r:.100}: must be a height and a width of {MIN_SIDE} to {MAX_SIDE} pixels.')
    if num_frames * size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f'num_frames={num_frames}, size={size}: a video of more than {MAX_PIXELS:,} pixels. Take '
                         'fewer frames or smaller ones.')


def _pick(rng, shares: dict[str, float]) -> str:
    return list(shares)[rng.choice(len(shares), p=list(shares.values()))]


# --------------------------------------------------------------------------- looks and places


def _random_words(rng, unseen: bool, held_out: bool = False, taken: Sequence[str] = ()) -> ObjectDescription:
    """Any look of a colour that is not `taken`."""
    if held_out:
        colour, shape = HELD_OUT[rng.integers(len(HELD_OUT))]
    else:
        pairs = [(colour, shape) for colour, shape in itertools.product(COLOURS, SHAPES)
                 if colour not in taken and (unseen or (colour, shape) not in HELD_OUT)]
        colour, shape = pairs[rng.integers(len(pairs))]
    return ObjectDescription(size=rng.choice(list(SIZES)).item(), texture=_pick(rng, _TEXTURES),
                             colour=colour, shape=shape)


def _change_one(rng, words: ObjectDescription, unseen: bool, names: Sequence[str] = _ATTRIBUTES):
    """Another look that differs from `words` in exactly one of the attributes `names`."""
    values = {'size': SIZES, 'texture': TEXTURES, 'colour': COLOURS, 'shape': SHAPES}
    weights = np.array([_NAMED[name] for name in names])
    name = names[rng.choice(len(names), p=weights / weights.sum())]
    others = [dataclasses.replace(words, **{name: value}) for value in values[name]
              if value != getattr(words, name)]
    others = [w for w in others if unseen or (w.colour, w.shape) not in HELD_OUT]
    return others[rng.integers(len(others))]


def _lay_out(rng, kind, event, num_frames, size, unseen) -> list[_Body] | None:
    """Objects from far to near, placed in every frame; None where this draw did not work out."""
    # The object of the event is the last one, and never one of a group that a sentence relates.
    number = 4 if kind == 'relation' and event != 'none' else 3 + int(rng.random() < .3)
    first = _random_words(rng, unseen, held_out=unseen)
    if kind == 'attribute':
        looks = [first, _change_one(rng, first, unseen)]
    elif kind == 'motion':
        looks = [first] * (3 if number == 4 and rng.random() < .15 else 2)
    else:
        second = first if rng.random() < .5 else _change_one(rng, first, unseen, ('size', 'texture'))
        anchor = (_change_one(rng, first, unseen, ('colour', 'shape')) if rng.random() < .2
                  else _random_words(rng, unseen, taken=[first.colour]))
        looks = [first, second, anchor]
    alike = looks.count(first)
    while len(looks) < number:
        looks.append(_random_words(rng, unseen, taken=[look.colour for look in looks]))
    if len(set(looks)) != number - alike + 1 or looks.count(first) != alike:
        return None

    scale = min(size) / 128
    bodies = [_Body(w, rng.uniform(*SIZES[w.size]) * scale, rng.uniform(-.2, .2), rng.uniform())
              for w in looks]
    for body in bodies[1:]:
        if body.words == first:  # No detail tells objects of the same look apart.
            body.diameter, body.angle, body.phase = bodies[0].diameter, bodies[0].angle, bodies[0].phase

    fastest = min(_SPEED[1] * scale, _MAX_TRAVEL * min(size) / (num_frames - 1))
    slowest = min(_SPEED[0] * scale, fastest / 2)
    # Alike objects keep to slower speeds: the less they travel, the less even a frame of known
    # time tells about their direction.
    speeds = [rng.uniform(slowest, .75 * fastest if kind == 'motion' else fastest) for _ in bodies]
    motions = rng.choice(list(MOTIONS), number).tolist()
    if kind == 'motion':
        motions[:alike] = rng.choice(list(MOTIONS), alike, replace=False).tolist()
    extent = np.array(size[::-1])
    placed = []
    if kind == 'relation':
        if not _place_group(rng, bodies[:3], motions[0], slowest, num_frames, size):
            return None
        placed = bodies[:3]
    for index in range(len(placed), number):
        body, motion = bodies[index], motions[index]
        eventful = event != 'none' and index == number - 1
        partner = bodies[rng.integers(index)] if eventful and event == 'cross' else None
        for _ in range(40):
            if partner is not None:
                motion, body.centres = _cross(rng, body, partner, fastest)
            elif eventful:
                motion, body.centres = _leave_and_return(rng, body, num_frames, size)
            else:
                body.centres = _straight(rng, body, motion, speeds[index], num_frames, size)
            inside = np.all((body.centres >= body.radius) & (body.centres <= extent - body.radius))
            if (inside or motion == AWAY) and all(o is partner or _apart(body, o) for o in placed):
                break
        else:
            return None
        body.words = dataclasses.replace(body.words, motion=motion)
        placed.append(body)

    order = rng.permutation(number).tolist()
    if event == 'cross':  # The larger of the two passes in front.
        partner_index = next(i for i, b in enumerate(bodies) if b is partner)
        near, far = ((partner_index, number - 1) if partner.diameter > bodies[-1].diameter
                     else (number - 1, partner_index))
        i, j = order.index(far), order.index(near)
        if i > j:
            order[i], order[j] = order[j], order[i]
    return [bodies[i] for i in order]


def _around_middle(num_frames: int) -> np.ndarray:
    return np.arange(num_frames) - (num_frames - 1) / 2


def _straight(rng, body, motion, speed, num_frames, size) -> np.ndarray:
    """Centres [T 2] of a path that stays in the frame."""
    steps = _around_middle(num_frames)
    margin = body.radius + speed * steps[-1]
    middle = rng.uniform(margin, np.array(size[::-1]) - margin)
    direction = np.array(MOTIONS[motion])
    # An axis without motion stops at a random moment of a motion along it: else standing still, or
    # moving along the other axis, would show in the position.
    middle += np.where(direction == 0, speed * rng.choice(steps, 2), 0)
    return middle + steps[:, None] * speed * direction


def _cross(rng, body, partner, speed) -> tuple[str, np.ndarray]:
    """Motion and centres of a path that meets the partner's in the middle of the clip."""
    steps = _around_middle(len(partner.centres))
    opposite = {'left': 'right', 'right': 'left', 'up': 'down', 'down': 'up'}
    motion = opposite.get(partner.words.motion) or rng.choice(list(opposite)).item()
    direction = np.array(MOTIONS[motion])
    reach = .2 * (body.radius + partner.radius)
    middle = partner.centres.mean(0) + rng.uniform(-reach, reach, 2)
    return motion, middle + steps[:, None] * rng.uniform(.8, 1) * speed * direction


def _leave_and_return(rng, body, num_frames, size) -> tuple[str, np.ndarray]:
    """Motion and centres of a path that is inside at both ends and outside in the middle."""
    steps = np.abs(_around_middle(num_frames))
    reach = body.radius + 1
    depth = -reach + (steps - .5) * 2 * reach / (steps[0] - .5)
    axis = rng.integers(2)
    centres = np.empty((num_frames, 2))
    centres[:, axis] = depth if rng.random() < .5 else size[1 - axis] - depth
    centres[:, 1 - axis] = rng.uniform(body.radius, size[axis] - body.radius)
    return AWAY, centres


def _place_group(rng, bodies, motion, slowest, num_frames, size) -> bool:
    """Sets the paths of (one, other, anchor): one on each side of the anchor, all moving alike."""
    if rng.random() < .5:
        motion = 'still'
    axis = rng.integers(2)
    extent = np.array(size[::-1])
    one, other, anchor = bodies
    offsets = np.zeros((3, 2))
    for i, (body, side) in enumerate(zip((one, other), rng.permutation([-1, 1]))):
        near = max(body.radius + anchor.radius, 1.1 * RELATION_MARGIN * extent[axis])
        gap = near * rng.uniform(1., 1.5)
        offsets[i, axis] = side * gap
        offsets[i, 1 - axis] = rng.uniform(-.7, .7) * gap
    steps = _around_middle(num_frames)
    travel = steps[:, None] * slowest * rng.uniform(1, 1.3) * np.array(MOTIONS[motion])
    radii = np.array([b.radius for b in bodies])[:, None]
    low = (radii - offsets).max(0) - travel.min(0)
    high = (extent - radii - offsets).min(0) - travel.max(0)
    if np.any(low > high):
        return False
    middle = rng.uniform(low, high)
    for body, offset in zip(bodies, offsets):
        body.centres = middle + offset + travel
        body.words = dataclasses.replace(body.words, motion=motion)
    return True


def _apart(body, other) -> bool:
    """Whether two paths keep apart: fully at both ends, in between enough to see both."""
    distance = np.linalg.norm(body.centres - other.centres, axis=1) / (body.radius + other.radius)
    # The same rule for the first and the last frame: time must have no direction.
    alike = body.words.look == other.words.look
    return distance[[0, -1]].min() >= 1 and distance.min() >= (1 if alike else .65)


# --------------------------------------------------------------------------- drawing


def _contours(shape: str) -> list[np.ndarray]:
    """Outlines [N 2] of a shape around its centroid, about 2 across; a second one is a hole."""
    def polygon(number, radius, start=-np.pi / 2):
        angle = start + 2 * np.pi * np.arange(number) / number
        return np.stack([np.cos(angle), np.sin(angle)], 1) * np.reshape(radius, (-1, 1))
    a = .36
    cross = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a),
             (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]
    return {'circle': [polygon(64, 1.)],
            'square': [polygon(4, 1.25, np.pi / 4)],
            'triangle': [polygon(3, 1.2)],
            'star': [polygon(10, np.tile([1.2, .52], 5))],
            'cross': [np.array(cross)],
            'ring': [polygon(64, 1.), polygon(64, .52)]}[shape]


def _stamp(body: _Body) -> tuple[np.ndarray, np.ndarray]:
    """An object on its own: opacity [S S 1] in [0, 1] and colour [S S 3], both float32, S odd."""
    factor, bits = 4, 8
    half = int(np.ceil(.65 * body.diameter))
    side = 2 * half + 1
    cos, sin = np.cos(body.angle), np.sin(body.angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    points = [((c @ turn * body.radius + side / 2) * factor - .5) * 2 ** bits
              for c in _contours(body.words.shape)]
    fine = np.zeros((side * factor, side * factor), np.float32)
    cv2.fillPoly(fine, [np.round(p).astype(np.int32) for p in points], 1., shift=bits)
    alpha = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)[..., None]

    y, x = np.mgrid[-half:half + 1, -half:half + 1].astype(np.float32)
    period = 1.35 * np.sqrt(body.diameter)  # Fine enough to show on a small object.
    if body.words.texture == 'striped':
        dark = np.sin(2 * np.pi * ((x + y) * np.sqrt(.5) / period + body.phase)) > .1
    elif body.words.texture == 'dotted':
        u, v = ((c / period + body.phase) % 1 - .5 for c in (x, y))
        dark = u ** 2 + v ** 2 < .33 ** 2
    else:
        dark = np.zeros((side, side), bool)
    colour = np.where(dark[..., None], np.float32((22, 20, 28)), np.float32(COLOURS[body.words.colour]))
    return alpha, colour


def _draw(bodies, stamps, background) -> tuple[np.ndarray, np.ndarray]:
    """Paints objects over a background [T H W 3], the first farthest; returns frames and masks [T H W]."""
    frames = background.copy()
    masks = np.zeros(frames.shape[:3], np.uint8)
    height, width = masks.shape[1:]
    for k, (body, (alpha, colour)) in enumerate(zip(bodies, stamps), 1):
        half = alpha.shape[0] // 2
        for t, (x, y) in enumerate(np.floor(body.centres).astype(int) - half):
            top, left = max(-y, 0), max(-x, 0)
            part = np.s_[top:max(height - y, 0), left:max(width - x, 0)]
            a = alpha[part]
            if not a.size:
                continue
            region = np.s_[t, y + top:y + top + a.shape[0], x + left:x + left + a.shape[1]]
            frames[region] = a * colour[part] + (1 - a) * frames[region] + .5
            masks[region][a[..., 0] >= .5] = k
    return frames, masks


def _background(rng, num_frames, size) -> np.ndarray:
    """Smooth greyish noise that drifts slowly; uint8 [T H W 3]."""
    height, width = size
    scale = min(size) / 128
    drift = rng.uniform(-1, 1, 2) * scale
    room = np.ceil(np.abs(drift) * (num_frames - 1)).astype(int) + 1
    w, h = width + room[0], height + room[1]
    grey = np.zeros((h, w), np.float32)
    for cells, strength in ((4, 22), (10, 12), (32, 7)):
        grid = rng.standard_normal((cells * h // min(size) + 2, cells * w // min(size) + 2))
        grey += strength * cv2.resize(grid.astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    tint = cv2.resize(rng.normal(0, 7, (5, 5, 3)).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    canvas = np.clip(rng.uniform(95, 150) + grey[..., None] + tint, 20, 220)
    start = np.where(drift < 0, room - 1, 0)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for t in range(num_frames):
        x, y = start + drift * t
        shift = np.float32([[1, 0, -x], [0, 1, -y]])
        frames[t] = cv2.warpAffine(canvas, shift, (width, height), borderMode=cv2.BORDER_REPLICATE) + .5
    return frames


# --------------------------------------------------------------------------- what is seen


def _centroids(masks, number) -> np.ndarray:
    """Centroids (x, y) of the visible pixels, [K T 2]; NaN where an object is hidden."""
    centroids = np.full((number, len(masks), 2), np.nan)
    for k, t in np.ndindex(number, len(masks)):
        y, x = np.nonzero(masks[t] == k + 1)
        if len(x):
            centroids[k, t] = x.mean(), y.mean()
    return centroids


def _well_visible(masks, stamps, event) -> bool:
    """Whether every object is seen well enough for the kind of clip."""
    areas = np.stack([(masks == k).sum((1, 2)) for k in range(1, len(stamps) + 1)])  # [K T]
    whole = np.array([(alpha >= .5).sum() for alpha, _ in stamps])[:, None]
    least = MIN_VISIBLE * (min(masks.shape[1:]) / 128) ** 2
    if np.any((areas >= least).mean(1) < .6):
        return False
    share = areas / whole
    if event == 'none':
        return share.min() >= .6 and share[:, [0, -1]].min() >= .85
    return share[:, [0, -1]].min() >= .6 and share.min() < .4


def _side(centroids, anchor, relation, size) -> np.ndarray:
    """For every object, +1: in that relation to the anchor, -1: in the opposite one, 0: unclear. [K]

    It has to hold in every frame in which both are visible.
    """
    direction = np.array(RELATIONS[relation])
    offset = centroids - centroids[anchor]  # [K T 2]
    along = offset @ direction
    across = np.abs(offset @ direction[::-1])
    margin = RELATION_MARGIN * abs(np.array(size[::-1]) @ direction)
    clear = np.isnan(along) | ((np.abs(along) >= margin) & (np.abs(along) >= RELATION_DOMINANCE * across))
    sign = np.where(np.isnan(along), 0, np.sign(along))
    same = np.abs(sign.sum(1)) == np.abs(sign).sum(1)
    return np.where(clear.all(1) & same, np.sign(sign.sum(1)), 0).astype(int)


# --------------------------------------------------------------------------- sentences


def _matching(objects, words, names) -> list[int]:
    """Indices of the objects that share the attributes `names` with `words`."""
    return [k for k, o in enumerate(objects) if all(getattr(o, n) == getattr(words, n) for n in names)]


def _sample(rng, subsets, number) -> list[tuple[str, ...]]:
    """Up to `number` different sets of attributes to name."""
    weights = np.array([_SUBSET_WEIGHT[len(s)] * np.prod([_NAMED[name] for name in s]) for s in subsets])
    picks = rng.choice(len(subsets), min(number, len(subsets)), replace=False, p=weights / weights.sum())
    return [subsets[i] for i in picks]


def _noun(words, names) -> str:
    """'small dotted red star'; 'one' stands for a shape that is not named."""
    named = [getattr(words, n) for n in names]
    return ' '.join(named if 'shape' in names else [*named, 'one'])


def _attribute_text(rng, words, names) -> str:
    article = 'a' if 'shape' in names and rng.random() < .25 else 'the'
    movable = [n for n in names if n != 'shape']
    if movable and rng.random() < .15:
        tail = movable[rng.integers(len(movable))]
        word = getattr(words, tail)
        ending = f'that is {word}'
        if word in ('striped', 'dotted') and rng.random() < .5:
            ending = {'striped': 'with stripes', 'dotted': 'with dots'}[word]
        return f'{article} {_noun(words, [n for n in names if n != tail])} {ending}'
    return f'{article} {_noun(words, names)}'


def _expressions(rng, kind, objects, centroids, size) -> list[Expression] | None:
    """Sentences true of exactly one object each; None where the clip does not allow its kind."""
    found = {}  # text -> (index of the object, kind of word)
    group = []  # Objects that only motion, or only the relation, tells apart.

    def add(text, target, tag):
        found.setdefault(text, (target, tag))

    alike = [[j for j, o in enumerate(objects) if o.look == w.look] for w in objects]
    if kind == 'motion':
        group = max(alike, key=len)

        def needs_motion(names, target):
            others = [objects[j].motion for j in _matching(objects, objects[target], names) if j != target]
            return bool(others) and not {objects[target].motion, AWAY} & set(others)

        subsets = [s for s in _SUBSETS if all(needs_motion(s, k) for k in group)]
        if not subsets:
            return None
        for names in _sample(rng, subsets, 3 if len(group) == 2 else 2):
            template = rng.integers(3)  # The same for all: only the direction tells them apart.
            for k in group:
                motion = objects[k].motion
                phrase = _STANDING[template] if motion == 'still' else _MOVING[template].format(motion)
                add(f'the {_noun(objects[k], names)} {phrase}', k, 'motion')
        for k, words in enumerate(objects):
            if k not in group and words.motion != AWAY and needs_motion((), k) and rng.random() < .4:
                phrase = (_STANDING if words.motion == 'still' else _MOVING)[rng.integers(3)]
                add(f'the one {phrase.format(words.motion)}', k, 'motion')

    if kind == 'relation':
        # The layout is known by its geometry only: any anchor and side that truly hold are used.
        chances = []
        for anchor, relation in itertools.product(range(len(objects)), ('left', 'above')):
            sides = _side(centroids, anchor, relation, size)
            for names in _SUBSETS:
                for one, other in itertools.permutations(range(len(objects)), 2):
                    rivals = [j for j in _matching(objects, objects[one], names) if j != anchor]
                    if sorted(rivals) == sorted([one, other]) and sides[one] == 1 and sides[other] == -1:
                        chances.append((anchor, relation, one, other, names))
        anchors = {c[0]: [s for s in _SUBSETS if len(_matching(objects, objects[c[0]], s)) == 1]
                   for c in chances}
        groups = sorted({c[:4] for c in chances if anchors[c[0]]
                         and _matching(objects, objects[c[2]], ('colour', 'shape')) == sorted(c[2:4])})
        if not groups:
            return None
        anchor, relation, one, other = groups[rng.integers(len(groups))]
        group = [one, other]
        subsets = [c[4] for c in chances if c[:4] == (anchor, relation, one, other)]
        for names in _sample(rng, subsets, 3):
            template = (_BESIDE if relation == 'left' else _OVER)[rng.integers(3)]
            anchor_noun = _noun(objects[anchor], _sample(rng, anchors[anchor], 1)[0])
            for k, word in ((one, relation), (other, {'left': 'right', 'above': 'below'}[relation])):
                phrase = template.format(word)
                add(f'the {_noun(objects[k], names)} {phrase} the {anchor_noun}', k, 'relation')

    near_miss = kind != 'attribute'
    for k, words in enumerate(objects):
        subsets = [s for s in _SUBSETS if _matching(objects, words, s) == [k]]
        number = 2 if k not in group else int(rng.random() < .3)
        for names in _sample(rng, subsets, number) if subsets else ():
            add(_attribute_text(rng, words, names), k, 'attribute')
            agree = [sum(getattr(o, n) == getattr(words, n) for n in names) for o in objects]
            near_miss |= len(names) > 1 and len(names) - 1 in agree
    if not near_miss or {k for k, _ in found.values()} != set(range(len(objects))):
        return None
    unseen = [('unseen',) if (o.colour, o.shape) in HELD_OUT else () for o in objects]
    listed = [Expression(text, k + 1, (tag, *unseen[k])) for text, (k, tag) in found.items()]
    return [listed[i] for i in rng.permutation(len(listed))]


# --------------------------------------------------------------------------- on disk


def _palette() -> list[int]:
    """The PASCAL VOC colour map, flat: 256 RGB triples."""
    index = np.arange(256)
    bits = [[((index >> (3 * i + c)) & 1) << (7 - i) for i in range(3)] for c in range(3)]
    return np.stack([np.sum(b, 0) for b in bits], 1).reshape(-1).tolist()


def _video_seed(seed: int, split: str, index: int) -> int:
    """40 bits; in hexadecimal the video's id, so that `make_video` can make again what is on disk."""
    return int.from_bytes(hashlib.sha256(f'{seed}/{split}/{index}'.encode()).digest()[:5], 'big')


def _save_frames(folder: pathlib.Path, names: Sequence[str], images: Sequence[np.ndarray]) -> None:
    """JPEG for RGB frames [T H W 3], palette PNG for index maps, plain PNG for boolean masks [T H W]."""
    folder.mkdir(parents=True)
    palette = _palette()
    for name, image in zip(names, images, strict=True):
        if image.ndim == 3:
            Image.fromarray(image).save(folder / f'{name}.jpg', quality=92)
        elif image.dtype == bool:
            Image.fromarray(np.uint8(image) * 255).save(folder / f'{name}.png')
        else:
            paletted = Image.fromarray(image)
            paletted.putpalette(palette)
            paletted.save(folder / f'{name}.png')


def _save_json(path: pathlib.Path, videos: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({'videos': dict(sorted(videos.items()))}))


def _write_split(root: pathlib.Path, split: str, count: int, seed: int, num_frames: int,
                 size: tuple[int, int]) -> None:
    public, full, meta = {}, {}, {}
    (root / split / 'JPEGImages').mkdir(parents=True)
    (root / split / 'Annotations').mkdir()
    for index in tqdm.trange(count, desc=split, unit='video', dynamic_ncols=True):
        video_seed = _video_seed(seed, split, index)
        video_id = f'{video_seed:010x}'
        # In the real set too, some videos do not start at 0 and only every fifth frame is there.
        names = [f'{5 * (t + video_seed % 4):05d}' for t in range(num_frames)]
        video = make_video(video_seed, num_frames, size, unseen=split == 'valid' and index % 2 == 1)
        _save_frames(root / split / 'JPEGImages' / video_id, names, video.frames)
        annotations = root / split / 'Annotations' / video_id
        if split == 'train':
            _save_frames(annotations, names, video.masks)
        else:
            for i, expression in enumerate(video.expressions):
                _save_frames(annotations / str(i), names, video.masks == expression.object_id)
        public[video_id] = {'expressions': {str(i): {'exp': e.text} for i, e in enumerate(video.expressions)},
                            'frames': names}
        full[video_id] = {'expressions': {str(i): {'exp': e.text, 'obj_id': str(e.object_id), 'tags': e.tags}
                                          for i, e in enumerate(video.expressions)}, 'frames': names}
        meta[video_id] = {'objects': {
            str(k): {'category': o.shape, 'frames': [n for n, m in zip(names, video.masks) if (m == k).any()]}
            for k, o in enumerate(video.objects, 1)}}
    if split == 'train':
        _save_json(root / 'train/meta.json', meta)
        _save_json(root / 'meta_expressions/train/meta_expressions.json', full)
    else:
        _save_json(root / 'valid/meta_expressions_challenge.json', full)
        _save_json(root / 'meta_expressions/valid/meta_expressions.json', public)


def write_dataset(root: str | os.PathLike, num_train: int, num_valid: int, seed: int = 0,
                  num_frames: int = 8, size: tuple[int, int] = (128, 128)) -> None:
    """Writes the world in the raw layout of Ref-YouTube-VOS, with public validation ground truth.

    root/{train,valid}/JPEGImages/<video>/<frame>.jpg
    root/train/Annotations/<video>/<frame>.png             palette PNG, k = object k
    root/train/meta.json
    root/valid/Annotations/<video>/<expression>/<frame>.png  0 or 255
    root/valid/meta_expressions_challenge.json             exp, obj_id, tags
    root/meta_expressions/{train,valid,test}/meta_expressions.json

    Training expressions also carry "tags" (see Expression); the test split is empty. Every second
    validation video holds a (colour, shape) of HELD_OUT, no training video does. A video depends
    on the seed, the split and its number only, not on the number of videos.

    Args:
        root: the folder to make; it must not exist, or be empty. It appears when all is written.
        num_train, num_valid: videos, up to 100,000.
        seed, num_frames, size: of every video, as in `make_video`.

    Raises:
        ValueError: a number is out of range.
        FileExistsError: root is there and not empty.
    """
    for name, value in (('num_train', num_train), ('num_valid', num_valid)):
        if not isinstance(value, numbers.Integral) or not 0 <= value <= MAX_VIDEOS:
            raise ValueError(f'{name}={value!r:.100}: must be a whole number from 0 to {MAX_VIDEOS}.')
    _check(seed, num_frames, size)
    root = pathlib.Path(os.path.realpath(root))
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f'{root}: exists and is not an empty folder; '
                              'remove it or name another one to write the data set to.')
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f'.{root.name}.', dir=root.parent))
    try:
        _write_split(partial, 'train', num_train, seed, num_frames, size)
        _write_split(partial, 'valid', num_valid, seed, num_frames, size)
        _save_json(partial / 'meta_expressions/test/meta_expressions.json', {})
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o777 & ~mask)  # mkdtemp makes it private.
        os.replace(partial, root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, or 2 when something is wrong."""
    parser = commands.make_parser(
        'python -m sgmg_jax.data.synthetic',
        'Writes a procedural data set of moving shapes and sentences about them, in the raw layout of '
        'Ref-YouTube-VOS.',
        epilog='example: python -m sgmg_jax.data.synthetic --out=data/synthetic_raw --train=600 --valid=40')
    parser.add_argument('--out', required=True, help='folder to make; must not exist, or be empty')
    parser.add_argument('--train', type=int, default=600, help='training videos (default: %(default)s)')
    parser.add_argument('--valid', type=int, default=40,
                        help='validation videos; every second one holds a combination of colour and shape '
                             'that training never shows (default: %(default)s)')
    parser.add_argument('--frames', type=int, default=8, help='frames a video (default: %(default)s)')
    parser.add_argument('--size', type=int, nargs='+', default=[128], metavar='PIXELS',
                        help='side of a square frame, or height and width (default: 128)')
    parser.add_argument('--seed', type=int, default=0,
                        help='another seed, another world (default: %(default)s)')
    return commands.exit_with(_write, parser, argv)


def _write(options: argparse.Namespace) -> None:
    if len(options.size) > 2:
        raise ValueError(f'--size has {len(options.size)} numbers: one side, or height and width.')
    size = (options.size[0], options.size[-1])
    write_dataset(options.out, options.train, options.valid, options.seed, options.frames, size)


if __name__ == '__main__':
    sys.exit(main())
