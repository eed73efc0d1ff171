"""COCO segmentations from untrusted files, checked before pycocotools sees them.

Its C code follows an outline in steps of a fifth of a pixel, reads past the end of runs that are too short, and stops
early at a run of 0 pixels.

Axis letters: H W pixels.
"""

from collections.abc import Mapping
import re
import reprlib
import typing
from typing import Any

from jaxtyping import UInt8
import numpy as np
from pycocotools import mask as coco_mask

MOST_PIXELS = 2**25  # per image
MOST_POLYGONS = 1000  # per object
LONGEST_OUTLINE = 2**20  # pixels, of all polygons of an object
LONGEST_CODE = 2**23  # characters of compressed runs

# Compressed runs are numbers of up to six digits in base 32: '0' to 'O' end a number, 'P' to 'o' continue it. What
# cannot be: other characters, a longer number, and one that is cut off, after which pycocotools would read on.
_NOT_NUMBERS = re.compile(r'[^0-o]|[P-o]{7}|[P-o]\Z')


def check_size(height: object, width: object, where: str) -> None:
    """Raises ValueError, beginning with `where`, if height and width are not the size of an image in pixels."""
    if (
        type(height) is not int
        or type(width) is not int
        or not (0 < height and 0 < width and height * width <= MOST_PIXELS)
    ):
        raise ValueError(
            f'{where}: "height" and "width" must be whole numbers from 1, with a product of at most '
            f'{MOST_PIXELS:,} pixels, are {reprlib.repr(height)} and {reprlib.repr(width)}. Copy the file '
            'again from its source.'
        )


def check_segmentation(segmentation: object, height: int, width: int, where: str) -> None:
    """Checks that `draw` can draw a segmentation in bounded time and memory.

    Args:
        segmentation: polygons [x0, y0, x1, y1, ...] in pixels, or runs {'size': [H, W], 'counts': ..} with the counts
            as a list of numbers or as their compressed string.
        height, width: size of its image; they pass `check_size`.
        where: file and object, for the message.

    Raises:
        ValueError: it is anything else, or does not fit the image.
    """
    if isinstance(segmentation, dict):
        fault = _fault_of_runs(segmentation, height, width)
    else:
        fault = _fault_of_polygons(segmentation, height, width)
    if fault:
        raise ValueError(
            f'{where}: {fault}, is {reprlib.repr(segmentation):.200}. Copy the file again from its source.'
        )


def compressed(segmentation: list | Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    """The compressed runs of a segmentation that passes `check_segmentation`: the union of its polygons, or its runs.

    Polygons of one or two points enclose nothing; pycocotools would take four numbers for a box.
    """
    if isinstance(segmentation, list):
        polygons = enclosing(segmentation)
        if not polygons:
            return coco_mask.encode(np.zeros((height, width), np.uint8, order='F'))
        return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    if isinstance(segmentation['counts'], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return {'size': [height, width], 'counts': segmentation['counts'].encode()}


def enclosing(polygons: list[list]) -> list[list]:
    """The polygons of at least three points."""
    return [polygon for polygon in polygons if len(polygon) > 4]


@typing.no_type_check  # checks its own arguments
def draw(segmentation: list | dict, height: int, width: int, where: str) -> UInt8[np.ndarray, 'H W']:
    """The mask of an object: 1 inside, 0 outside.

    Raises:
        ValueError: as `check_size` and `check_segmentation`.
    """
    check_size(height, width, where)
    check_segmentation(segmentation, height, width, where)
    return coco_mask.decode(compressed(segmentation, height, width))


def is_whole(counts: object, height: int, width: int) -> bool:
    """Whether compressed runs cover an image exactly: pycocotools decodes them, and encodes the mask to the same."""
    if not isinstance(counts, str) or len(counts) > LONGEST_CODE or _NOT_NUMBERS.search(counts):
        return False
    runs = {'size': [height, width], 'counts': counts.encode()}
    try:
        return coco_mask.encode(coco_mask.decode(runs))['counts'] == runs['counts']
    except ValueError:  # More pixels than the image has.
        return False


def _fault_of_runs(segmentation: Mapping[str, Any], height: int, width: int) -> str:
    size, counts = segmentation.get('size'), segmentation.get('counts')
    whole = (
        is_whole(counts, height, width)
        if isinstance(counts, str)
        else (
            isinstance(counts, list)
            and len(counts) > 0
            and all(type(count) is int for count in counts)
            and counts[0] >= 0
            and all(count > 0 for count in counts[1:])
            and sum(counts) == height * width
        )
    )
    if whole and isinstance(size, list) and size == [height, width] and all(type(side) is int for side in size):
        return ''
    return f'run lengths must have "size" [{height}, {width}] and, in "counts", runs that cover exactly these pixels'


def _fault_of_polygons(polygons: object, height: int, width: int) -> str:
    reach = 2 * max(height, width)
    if not isinstance(polygons, list) or not all(
        isinstance(polygon, list)
        and len(polygon) % 2 == 0
        and all(type(value) in (int, float) and abs(value) <= reach for value in polygon)
        for polygon in polygons
    ):
        return (
            f'a polygon must be numbers [x0, y0, x1, y1, ...] in pixels of a {width}x{height} image, and a '
            'segmentation a list of polygons, or runs'
        )
    if len(polygons) > MOST_POLYGONS:
        return f'an object must have at most {MOST_POLYGONS:,} polygons'
    length = 0.0
    for polygon in polygons:
        corners = np.array(polygon, np.float64).reshape(-1, 2)
        length += np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1, initial=0).sum() + len(corners)
    return f'the outline of an object must be at most {LONGEST_OUTLINE:,} pixels' if length > LONGEST_OUTLINE else ''
