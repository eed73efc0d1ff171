"""COCO's segmentations from strangers: checked before pycocotools sees them.

Pycocotools walks along an outline in steps of a fifth of a pixel, reads foreign memory where the runs of an encoding
end early, and stops early at runs of 0 pixels. Axis letters: H W pixels.
"""
import reprlib

import numpy as np
from pycocotools import mask as coco_mask

MOST_PIXELS = 2 ** 25  # of a picture
MOST_POLYGONS = 1000  # of an object
LONGEST_OUTLINE = 2 ** 20  # pixels, of all polygons of an object
LONGEST_CODE = 2 ** 23  # characters of compressed runs; each takes some 50 bytes to check


def check_size(height, width, where: str) -> None:
    """Raises ValueError if this is not the size of a picture in pixels; `where` is said first."""
    if type(height) is not int or type(width) is not int or not (
            0 < height and 0 < width and height * width <= MOST_PIXELS):
        raise ValueError(f'{where}: "height" and "width" must be whole numbers from 1, of at most {MOST_PIXELS:,} '
                         f'pixels together, are {reprlib.repr(height)} and {reprlib.repr(width)}. Copy the file again '
                         'from its source.')


def check_segmentation(segmentation, height: int, width: int, where: str) -> None:
    """Checks that a segmentation can be drawn, by `draw`, in bounded time and memory.

    Args:
        segmentation: what should be polygons [x0 y0 x1 y1 ...] in pixels, or runs {'size': [H, W], 'counts': ..}, the
            counts a list of numbers or their compressed string.
        height, width: of its picture; they pass `check_size`.
        where: its file and object, for the message.

    Raises:
        ValueError: it is something else, or does not fit the picture.
    """
    fault = _fault_of_runs if isinstance(segmentation, dict) else _fault_of_polygons
    if what := fault(segmentation, height, width):
        raise ValueError(f'{where}: {what}, is {reprlib.repr(segmentation):.200}. Copy the file again from its source.')


def draw(segmentation: list | dict, height: int, width: int, where: str) -> np.ndarray:
    """Where an object is, 0 and 1, uint8 [H W]: the union of its polygons, or its runs.

    Polygons of one or two points enclose nothing; pycocotools would take four numbers for a box.

    Raises:
        ValueError: as `check_size` and `check_segmentation`.
    """
    check_size(height, width, where)
    check_segmentation(segmentation, height, width, where)
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if len(polygon) > 4]
        if not polygons:
            return np.zeros((height, width), np.uint8)
        return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))
    if isinstance(segmentation['counts'], str):
        return coco_mask.decode({'size': [height, width], 'counts': segmentation['counts'].encode()})
    counts = segmentation['counts']
    return np.repeat(np.arange(len(counts)) % 2, counts).astype(np.uint8).reshape((height, width), order='F')


def is_whole(counts, size: int) -> bool:
    """Whether the runs of a compressed encoding add up to `size` pixels, all but the first of at least one."""
    if not isinstance(counts, str) or not 0 < len(counts) <= LONGEST_CODE or not counts.isascii():
        return False
    # 5 bits a character, the lowest first; bit 5 says that more follow, bit 4 of the last is the sign. From the fourth
    # run on, differences to the run before the last one.
    codes = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes < 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if codes.min() < 0 or codes.max() > 63 or codes[-1] >= 32 or (ends - starts).max() > 6:
        return False
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    runs = np.add.reduceat((codes & 31) << 5 * place, starts)
    runs -= np.where(codes[ends] & 16, np.int64(1) << 5 * (ends - starts + 1), 0)
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    return bool(runs[0] >= 0 and (runs[1:] > 0).all() and runs.max() <= size and runs.sum() == size)


def _fault_of_runs(segmentation: dict, height: int, width: int) -> str:
    size, counts = segmentation.get('size'), segmentation.get('counts')
    whole = is_whole(counts, height * width) if isinstance(counts, str) else (
        isinstance(counts, list) and len(counts) > 0 and all(type(count) is int for count in counts)
        and counts[0] >= 0 and all(count > 0 for count in counts[1:]) and sum(counts) == height * width)
    if whole and isinstance(size, list) and size == [height, width] and all(type(side) is int for side in size):
        return ''
    return f'an encoding of runs must have "size" [{height}, {width}], and in "counts" runs that cover these pixels'


def _fault_of_polygons(polygons, height: int, width: int) -> str:
    reach = 2 * max(height, width)
    if not isinstance(polygons, list) or not all(
            isinstance(polygon, list) and len(polygon) % 2 == 0 and all(
                type(value) in (int, float) and abs(value) <= reach for value in polygon) for polygon in polygons):
        return (f'a polygon must be numbers [x0, y0, x1, y1, ...] in pixels of a picture of {width}x{height}, '
                'a segmentation a list of polygons, or runs')
    if len(polygons) > MOST_POLYGONS:
        return f'an object has at most {MOST_POLYGONS:,} polygons'
    length = 0
    for polygon in polygons:
        corners = np.array(polygon, np.float64).reshape(-1, 2)
        length += np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1, initial=0).sum() + len(corners)
    return f'the outline of an object is at most {LONGEST_OUTLINE:,} pixels long' if length > LONGEST_OUTLINE else ''
