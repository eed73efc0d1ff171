"""Masks drawn on frames, and contact sheets: each sentence above a strip of frames.

Axis letters: E sentences, T frames, H W pixels.
"""

from collections.abc import Sequence
import os
import typing
from typing import no_type_check

import cv2
from jaxtyping import Bool, UInt8
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sgmg_jax import files

# Bright on a dimmed background, and distinct for colour-blind readers.
COLOURS = (
    (255, 32, 140),  # pink
    (255, 221, 0),  # yellow
    (0, 190, 255),  # blue
    (96, 255, 96),  # green
    (255, 128, 0),  # orange
    (190, 120, 255),  # violet
    (255, 255, 255),  # white
    (255, 170, 200),  # rose
)
PREDICTION = COLOURS[0]
TRUTH = (120, 255, 220)
DIM = 0.45  # brightness of what no mask covers

TALLEST = 4  # maximum height of a tile, in widths; narrower videos are scaled down
LONGEST_SENTENCE = 500  # characters; the rest is cut off

PAPER, INK, FAINT = (255, 255, 255), (28, 32, 38), (118, 125, 135)


class Row(typing.NamedTuple):
    """One sentence and its video, for `contact_sheet`."""

    sentence: str
    frames: UInt8[np.ndarray, 'T H W 3']
    masks: Bool[np.ndarray, 'T H W']
    truth: Bool[np.ndarray, 'T H W'] | None = None
    score: str | None = None  # such as 'J&F 81.2'


@no_type_check  # checks its own arguments
def overlay(
    frames: UInt8[np.ndarray, 'T H W 3'],
    masks: Bool[np.ndarray, 'E T H W'],
    truth: Bool[np.ndarray, 'T H W'] | None = None,
    dim: float = DIM,
    thickness: int | None = None,
) -> UInt8[np.ndarray, 'T H W 3']:
    """Draws the contour of each mask on a copy of the frames, in which everything outside the masks is darker.

    The objects keep their own colours, which sentences may name: a tint would change them.

    Args:
        frames: RGB.
        masks: of each sentence; their contours have the colours of COLOURS, in order.
        truth: its contour is drawn over the others in the colour `TRUTH`.
        dim: brightness of the background, 0 to 1.
        thickness: of the ground truth's contour, in pixels; the masks' are twice as thick. Default: grows with the
          frame.

    Raises:
        ValueError: shapes or dtypes do not fit.
    """
    frames, masks = np.asarray(frames), np.asarray(masks)
    truth = None if truth is None else np.asarray(truth)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f'frames must be uint8 [T H W 3], got {frames.dtype} {frames.shape}')
    if masks.dtype != bool or masks.shape[1:] != frames.shape[:3]:
        raise ValueError(
            f'masks must be bool [E {" ".join(map(str, frames.shape[:3]))}] like the frames, got '
            f'{masks.dtype} {masks.shape}'
        )
    if truth is not None and (truth.dtype != bool or truth.shape != frames.shape[:3]):
        raise ValueError(f'truth must be bool {frames.shape[:3]} like the frames, got {truth.dtype} {truth.shape}')
    if thickness is None:
        thickness = max(1, round(min(frames.shape[1:3]) / 240))
    darker = np.round(dim * np.arange(256)).astype(np.uint8)
    pictures = frames.copy()
    for t, picture in enumerate(pictures):
        background = ~masks[:, t].any(axis=0)
        picture[background] = darker[picture[background]]
        for number, mask in enumerate(masks[:, t]):
            _draw_contour(picture, mask, colour_of(number), 2 * thickness)
        if truth is not None:
            _draw_contour(picture, truth[t], TRUTH, thickness)
    return pictures


def colour_of(number: int) -> tuple[int, int, int]:
    """RGB of a sentence, by its number; they repeat after len(COLOURS) sentences."""
    return COLOURS[number % len(COLOURS)]


def legend(sentences: Sequence[str], width: int, height: int) -> UInt8[np.ndarray, 'h W 3']:
    """A strip with each sentence beside its colour, to stand below frames of `width` and `height` pixels."""
    size = max(10, min(width, height) // 18)
    font = ImageFont.load_default(size)
    margin, side, line = size // 2, round(size * 0.7), round(size * 1.4)
    captions = [
        _wrap(files.one_line(' '.join(sentence.split()), LONGEST_SENTENCE), font, width - 3 * margin - side)
        for sentence in sentences
    ]
    strip = Image.new('RGB', (width, sum(map(len, captions)) * line + margin), INK)
    draw = ImageDraw.Draw(strip)
    y = margin // 2
    for number, caption in enumerate(captions):
        top = y + (line - side) // 2
        draw.rectangle((margin, top, margin + side, top + side), colour_of(number))
        for text in caption:
            draw.text((2 * margin + side, y + line / 2), text, PAPER, font, anchor='lm')
            y += line
    return np.asarray(strip)


def _draw_contour(picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], thickness: int) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, colour, thickness, cv2.LINE_AA)


@no_type_check  # checks its own arguments
def contact_sheet(
    rows: Sequence[Row], path: str | os.PathLike | None = None, columns: int = 5, tile_width: int = 384
) -> UInt8[np.ndarray, 'H W 3']:
    """Draws each sentence above a strip of its frames, with a legend at the end.

    Args:
        rows: one per sentence; plain tuples in the order of `Row` also work. Videos may differ in size and length.
        path: where to save the picture (the suffix gives the format); it appears whole or not at all.
        columns: frames per row, evenly spaced from the first to the last; fewer for a shorter video.
        tile_width: pixels, at least 36.

    Returns:
        the picture, RGB.

    Raises:
        ValueError: no rows, a row without frames, or sizes or shapes that do not fit.
        OSError: the picture cannot be written; nothing is left behind.
    """
    rows = [Row(*row) for row in rows]
    if not rows:
        raise ValueError('a contact sheet needs at least one row')
    if columns < 1 or tile_width < 36:
        raise ValueError(f'a contact sheet needs at least 1 column of 36 pixels, got {columns} of {tile_width}')
    margin, gap = tile_width // 12, tile_width // 36
    size = max(11, tile_width // 15)
    font, small = ImageFont.load_default(size), ImageFont.load_default(max(10, size * 4 // 5))
    width = 2 * margin + columns * tile_width + (columns - 1) * gap
    strips = [_strip(row, columns, tile_width, gap) for row in rows]
    captions = [
        _wrap(
            files.one_line(' '.join(row.sentence.split()), LONGEST_SENTENCE),
            font,
            width - 2 * margin - _length(row.score, small) - size,
        )
        for row in rows
    ]
    line = round(size * 1.35)
    height = (
        margin
        + sum(len(caption) * line + gap + strip.shape[0] + margin for caption, strip in zip(captions, strips))
        + line
        + margin // 2
    )

    sheet = Image.new('RGB', (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    y = margin
    for row, caption, strip in zip(rows, captions, strips):
        if row.score:
            draw.text((width - margin, y + size), row.score, FAINT, small, anchor='rs')
        for text in caption:
            draw.text((margin, y + size), text, INK, font, anchor='ls')
            y += line
        y += gap
        sheet.paste(Image.fromarray(strip), (margin, y))
        y += strip.shape[0] + margin
    _legend(draw, margin, y, line, small, with_truth=any(row.truth is not None for row in rows))
    if path is not None:
        with files.replacing(path) as partial:
            sheet.save(partial)
    return np.asarray(sheet)


def _strip(row: Row, columns: int, tile_width: int, gap: int) -> np.ndarray:
    """The row's frames side by side on white: uint8 [H W 3]."""
    frames, masks = np.asarray(row.frames), np.asarray(row.masks)
    if not frames.size:
        raise ValueError(f'{row.sentence!r}: there is no frame to show')
    truth = None if row.truth is None else np.asarray(row.truth)
    for name, mask in (('masks', masks), ('truth', truth)):
        if mask is not None and mask.shape != frames.shape[:3]:
            raise ValueError(f'{row.sentence!r}: {name} have shape {mask.shape}, the frames {frames.shape[:3]}')
    shown = np.unique(np.round(np.linspace(0, len(frames) - 1, columns)).astype(int))
    height, width = frames.shape[1:3]
    size = tile_width, max(1, round(tile_width * height / width))
    if size[1] > TALLEST * tile_width:
        size = max(1, round(TALLEST * tile_width * width / height)), TALLEST * tile_width
    # Resize first; otherwise contours would be scaled with the frames.
    pictures, shapes = resized(
        frames[shown], np.stack([masks[shown], *([] if truth is None else [truth[shown]])]), size
    )
    tiles = overlay(pictures, shapes[:1], truth=None if truth is None else shapes[1])
    strip = np.full((size[1], columns * tile_width + (columns - 1) * gap, 3), PAPER, np.uint8)
    for column, tile in enumerate(tiles):
        x = column * (tile_width + gap)
        strip[:, x : x + size[0]] = tile
    return strip


def resized(
    frames: UInt8[np.ndarray, 'T H W 3'], masks: Bool[np.ndarray, 'E T H W'], size: tuple[int, int]
) -> tuple[UInt8[np.ndarray, 'T h w 3'], Bool[np.ndarray, 'E T h w']]:
    """Frames and masks at another size, (w, h)."""
    interpolation = cv2.INTER_AREA if size[0] < frames.shape[2] else cv2.INTER_CUBIC
    pictures = np.stack([cv2.resize(frame, size, interpolation=interpolation) for frame in frames])
    shapes = [
        [cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5 for mask in of_sentence]
        for of_sentence in masks
    ]
    return pictures, np.array(shapes, bool)


def _length(text: str | None, font: typing.Any) -> int:
    return round(font.getlength(text or ''))


def _wrap(text: str, font: typing.Any, width: int) -> list[str]:
    """Wraps text at words to lines of at most `width` pixels; a wider single word gets its own line."""
    lines = ['']
    for word in text.split():
        longer = f'{lines[-1]} {word}'.strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _legend(draw: ImageDraw.ImageDraw, x: int, y: int, line: int, font: typing.Any, with_truth: bool) -> None:
    side = line * 3 // 5
    entries = [('prediction', PAPER, PREDICTION)] + [('ground truth', PAPER, TRUTH)] * with_truth
    for text, fill, outline in entries:
        draw.rectangle((x, y, x + side, y + side), fill, outline, max(2, side // 7))
        x += side + line // 3
        draw.text((x, y + side / 2), text, FAINT, font, anchor='lm')
        x += _length(text, font) + line
