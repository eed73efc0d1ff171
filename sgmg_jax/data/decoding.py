"""Decodes the JPEG and PNG frames of data sets, strictly: a truncated picture is an error, not a grey area.

Axis letters: H W pixels.
"""

from collections.abc import Sequence

import cv2
from jaxtyping import UInt8
import numpy as np

from sgmg_jax import pictures


def decode_picture(
    data: bytes, size: tuple[int, int] | None = None, formats: Sequence[str] = (pictures.JPEG, pictures.PNG)
) -> UInt8[np.ndarray, 'H W 3']:
    """RGB of a JPEG or PNG as stored: a camera's orientation tag is ignored, because masks have none.

    Args:
        size: the required (H, W); None: any.

    Raises:
        BrokenPicture: it has another size, or is broken or truncated.
    """
    try:
        stored = _size_of(data, formats)
        if size is not None and stored != tuple(size):
            raise pictures.BrokenPicture(f'is {stored[1]}x{stored[0]} pixels, not {size[1]}x{size[0]}')
        image = (
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
            if _has_end(data)
            else None
        )
    except cv2.error as error:
        raise pictures.BrokenPicture(f'is broken or truncated ({error})') from error
    if image is None or image.shape[:2] != stored:
        raise pictures.BrokenPicture('is broken or truncated')
    return image


def _size_of(data: bytes, formats: Sequence[str]) -> tuple[int, int]:
    try:
        return pictures.read_header(data, formats)[2:]
    except pictures.BrokenPicture as error:
        raise pictures.BrokenPicture(f'is broken or truncated ({error})') from error


def check_jpeg(data: bytes) -> tuple[int, int]:
    """Reads a whole JPEG and returns its (H, W). Raises BrokenPicture."""
    size = pictures.check_jpeg(data)
    if not _has_end(data):
        raise pictures.BrokenPicture('is broken or truncated')
    return size


def _has_end(data: bytes) -> bool:
    """Whether a JPEG has its end marker, which some versions of OpenCV and Pillow do not check; True for others."""
    return not data.startswith(b'\xff\xd8') or b'\xff\xd9' in data[-1024:]
