"""What the readers of raw videos share.

Axis letters: H W pixels.
"""
from collections.abc import Callable, Sequence
import io
import os
import pathlib

from absl import logging
import numpy as np
from PIL import Image

from sgmg_jax import files, pictures
from sgmg_jax.data import metadata, records

# What record and metadata of a video both have, what only the metadata have, and what only the record has.
Parts = tuple[dict, dict, dict[str, list[bytes]]]
# Of each split its videos, and the function that reads one: None leaves it out; OSError, ValueError: a file is broken.
Splits = dict[str, tuple[Sequence, Callable[..., Parts | None]]]


def warn(text: str, *values) -> None:
    """Logs a warning; what comes from files or paths is fit for a terminal."""
    logging.warning(text, *(files.printable(str(value)) if isinstance(value, str | pathlib.Path) else value
                            for value in values))


def there(path: pathlib.Path) -> bool:
    """Whether something has this name, a link to nothing among them: that is a fault, not a part that is left out."""
    return os.path.lexists(path)


def encode_png(index: np.ndarray) -> bytes:
    """A grey PNG of a map of object ids, or of 0 and 1 [H W]."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(index, np.uint8)).save(stream, 'PNG')
    return stream.getvalue()


def find_files(folder: pathlib.Path, names: Sequence[str], *endings: str) -> list[pathlib.Path]:
    """The file of each of these names, whatever of the endings it has, in capitals or not.

    Where there is none, its path with the first ending, which then cannot be read. Raises OSError, and ValueError
    where there are two.
    """
    there = files.by_stem(folder, *endings)
    twice = next((there[name] for name in names if len(there.get(name, ())) > 1), None)
    if twice:
        raise ValueError(f'{folder}: {" and ".join(twice)} differ in their ending alone. Remove all but one.')
    return [folder / (there[name][0] if name in there else name + endings[0]) for name in names]


def read_frames(paths: Sequence[pathlib.Path], root: pathlib.Path, kind: str, read: Callable[[bytes], tuple[int, int]],
                missing: str) -> tuple[list[bytes], int, int]:
    """The bytes of the pictures of a video, and their common height and width.

    Args:
        root: of the raw data set, which no link to a file may lead out of.
        kind: 'JPEG' or 'PNG', for messages.
        read: looks at all of a picture and gives its (height, width), or raises BrokenPicture.
        missing: why a picture should be there, for messages.

    Raises:
        FileNotFoundError: a picture is not there.
        ValueError: one is broken, they have several sizes, or more bytes than a record can have.
    """
    found, first, total = [], None, 0
    for path in paths:
        try:
            found.append(files.read_bytes(path, pictures.LARGEST, root))
            size = read(found[-1])
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{path}: missing{missing}. Unpack the frames again.') from error
        except pictures.BrokenPicture as error:
            raise ValueError(f'{path}: broken {kind} ({error}). Unpack this frame again.') from error
        first = first or size
        if size != first:
            raise ValueError(f'{path}: is {size[1]}x{size[0]} pixels, but {paths[0].name} of the same video is '
                             f'{first[1]}x{first[0]}. Frames of one video have one size; unpack them again.')
        total = add_bytes(total, found[-1], path.parent)
    metadata.check_frame_size(*first, f'{paths[0]}')
    return found, *first


def add_bytes(total: int, data: bytes, where: pathlib.Path) -> int:
    """`total` and these; raises ValueError if a record cannot have so many."""
    total += len(data)
    if total > records.LARGEST_RECORD:
        raise ValueError(f'{where}: has more than {records.LARGEST_RECORD:,} bytes for one video. Leave it out.')
    return total
