"""Masks in the forms that other tools take.

Axis letters: E sentences, H W pixels.
"""

from collections.abc import Sequence
import importlib
from typing import Any

from jaxtyping import Bool, Float
import numpy as np
from pycocotools import mask as rle


def to_rle(mask: Bool[np.ndarray, 'H W']) -> dict[str, Any] | None:
    """COCO's compressed run lengths, {'size': [H, W], 'counts': text}; None for an empty mask."""
    if not mask.any():
        return None
    encoded = rle.encode(np.asfortranarray(mask, np.uint8))
    return {'size': list(encoded['size']), 'counts': encoded['counts'].decode()}


def to_detections(masks: Bool[np.ndarray, 'E H W'], scores: Float[np.ndarray, ' E'], sentences: Sequence[str]) -> Any:
    """The objects of one frame as supervision.Detections; sentences with an empty mask are left out.

    class_id and tracker_id are the numbers of the sentences, which are in data['class_name'].

    Raises:
        ModuleNotFoundError: supervision is not installed.
    """
    supervision = importlib.import_module('supervision')
    shown = np.flatnonzero(masks.any(axis=(1, 2)))
    boxes = np.zeros((len(shown), 4), np.float32)
    for box, mask in zip(boxes, masks[shown]):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return supervision.Detections(
        xyxy=boxes,
        mask=masks[shown],
        confidence=np.asarray(scores, np.float32)[shown],
        class_id=shown,
        tracker_id=shown,
        data={'class_name': np.array([sentences[int(number)] for number in shown], dtype=object)},
    )
