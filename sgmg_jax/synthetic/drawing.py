"""Draws a clip, and measures how much of each object is visible.

Axis letters: T frames, H W pixels, K objects, _S the side of a stamp.
"""

from collections.abc import Sequence
import math

import cv2
from jaxtyping import Float, Float32, UInt8
import numpy as np

from sgmg_jax.synthetic.layout import Body
from sgmg_jax.synthetic.words import COLOURS

# Opacity in [0, 1], and colour. `_S` is odd; its size is not checked, as it differs from object to object.
Stamp = tuple[Float32[np.ndarray, '_S _S 1'], Float32[np.ndarray, '_S _S 3']]
MIN_VISIBLE = 30  # pixels, in a frame of 128, for an object to count as visible


def _contours(shape: str) -> list[np.ndarray]:
    """Outlines [N 2] of a shape around its centroid, about 2 across; a second one is a hole."""

    def polygon(number, radius, start=-np.pi / 2):
        angle = start + 2 * np.pi * np.arange(number) / number
        return np.stack([np.cos(angle), np.sin(angle)], 1) * np.reshape(radius, (-1, 1))

    a = 0.36
    cross = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]
    return {
        'circle': [polygon(64, 1.0)],
        'square': [polygon(4, 1.25, np.pi / 4)],
        'triangle': [polygon(3, 1.2)],
        'star': [polygon(10, np.tile([1.2, 0.52], 5))],
        'cross': [np.array(cross)],
        'ring': [polygon(64, 1.0), polygon(64, 0.52)],
    }[shape]


def stamp(body: Body) -> Stamp:
    """A single object."""
    factor, bits = 4, 8
    half = int(np.ceil(0.65 * body.diameter))
    side = 2 * half + 1
    cos, sin = np.cos(body.angle), np.sin(body.angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    points = [((c @ turn * body.radius + side / 2) * factor - 0.5) * 2**bits for c in _contours(body.words.shape)]
    fine = np.zeros((side * factor, side * factor), np.float32)
    cv2.fillPoly(fine, [np.round(p).astype(np.int32) for p in points], 1.0, shift=bits)
    alpha = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)[..., None]

    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    period = 1.35 * np.sqrt(body.diameter)  # fine enough to be visible on a small object
    if body.words.texture == 'striped':
        dark = np.sin(2 * np.pi * ((x + y) * np.sqrt(0.5) / period + body.phase)) > 0.1
    elif body.words.texture == 'dotted':
        u, v = ((c / period + body.phase) % 1 - 0.5 for c in (x, y))
        dark = u**2 + v**2 < 0.33**2
    else:
        dark = np.zeros((side, side), bool)
    colour = np.where(
        dark[..., None], np.array((22, 20, 28), np.float32), np.array(COLOURS[body.words.colour], np.float32)
    )
    return alpha, colour


def draw(
    bodies: Sequence[Body], stamps: Sequence[Stamp], background: UInt8[np.ndarray, 'T H W 3']
) -> tuple[UInt8[np.ndarray, 'T H W 3'], UInt8[np.ndarray, 'T H W']]:
    """Paints objects over a background, the first one farthest away; returns frames and masks."""
    frames = background.copy()
    masks = np.zeros(frames.shape[:3], np.uint8)
    height, width = frames.shape[1:3]
    for k, (body, (alpha, colour)) in enumerate(zip(bodies, stamps), 1):
        half = alpha.shape[0] // 2
        for t in range(len(frames)):
            x, y = (math.floor(centre) - half for centre in body.centres[t])
            top, left = max(-y, 0), max(-x, 0)
            part = np.s_[top : max(height - y, 0), left : max(width - x, 0)]
            a = alpha[part]
            if not a.size:
                continue
            region = np.s_[t, y + top : y + top + a.shape[0], x + left : x + left + a.shape[1]]
            frames[region] = a * colour[part] + (1 - a) * frames[region] + 0.5
            masks[region][a[..., 0] >= 0.5] = k
    return frames, masks


def background(rng: np.random.Generator, num_frames: int, size: tuple[int, int]) -> UInt8[np.ndarray, 'T H W 3']:
    """Smooth greyish noise that drifts slowly."""
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
        shift = np.array([[1, 0, -x], [0, 1, -y]], np.float32)
        frames[t] = cv2.warpAffine(canvas, shift, (width, height), borderMode=cv2.BORDER_REPLICATE) + 0.5
    return frames


def centroids(masks: UInt8[np.ndarray, 'T H W'], number: int) -> Float[np.ndarray, 'K T 2']:
    """Centroids (x, y) of the visible pixels of objects 1 to `number`; NaN where hidden."""
    found = np.full((number, len(masks), 2), np.nan)
    for k, t in np.ndindex(number, len(masks)):
        y, x = np.nonzero(masks[t] == k + 1)
        if len(x):
            found[k, t] = x.mean(), y.mean()
    return found


def well_visible(masks: UInt8[np.ndarray, 'T H W'], stamps: Sequence[Stamp], event: str) -> bool:
    """Whether every object is visible enough for the event of the clip."""
    areas = np.stack([(masks == k).sum((1, 2)) for k in range(1, len(stamps) + 1)])  # [K T]
    whole = np.array([(alpha >= 0.5).sum() for alpha, _ in stamps])[:, None]
    least = MIN_VISIBLE * (min(masks.shape[1:]) / 128) ** 2
    if np.any((areas >= least).mean(1) < 0.6):
        return False
    share = areas / whole
    if event == 'none':
        return bool(share.min() >= 0.6 and share[:, [0, -1]].min() >= 0.85)
    return bool(share[:, [0, -1]].min() >= 0.6 and share.min() < 0.4)
