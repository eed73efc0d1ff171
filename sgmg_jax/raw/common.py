"""Shared by the readers of raw data sets.

Axis letters: H W pixels.
"""

from collections.abc import Callable, Sequence
import io
import os
import pathlib
from typing import Any

from absl import logging
from jaxtyping import Shaped
import numpy as np
from PIL import Image

from sgmg_jax import files, pictures
from sgmg_jax.data import decoding, metadata

# A video's fields in both record and metadata, its fields in the metadata only, and those in the record only.
Parts = tuple[dict, dict, dict[str, list[bytes]]]
# By split: its videos, and the function that reads one. That returns None to leave the video out, and raises OSError
# or ValueError for a broken file.
Splits = dict[str, tuple[Sequence, Callable[..., Parts | None]]]


def warn(text: str, *values: object) -> None:
    """Logs a warning with its values made printable."""
    logging.warning(
        text, *(files.printable(str(value)) if isinstance(value, str | pathlib.Path) else value for value in values)
    )


def there(path: pathlib.Path) -> bool:
    """Whether the path exists, even as a dead link, which is a fault and not an optional part left out."""
    return os.path.lexists(path)


def encode_png(index: Shaped[np.ndarray, 'H W']) -> bytes:
    """A grey PNG of a map of object ids, or of 0 and 1."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(index, np.uint8)).save(stream, 'PNG')
    return stream.getvalue()


def find_files(folder: pathlib.Path, names: Sequence[str], *endings: str) -> list[pathlib.Path]:
    """The file of each name, with any of the endings (case-insensitive).

    For a name without a file, a path with the first ending, so that reading it fails. Raises OSError, and ValueError
    if a name has two files.
    """
    there = files.by_stem(folder, *endings)
    twice = next((there[name] for name in names if len(there.get(name, ())) > 1), None)
    if twice:
        raise ValueError(f'{folder}: {" and ".join(twice)} differ only in their ending. Remove all but one.')
    return [folder / (there[name][0] if name in there else name + endings[0]) for name in names]


def read_frames(
    paths: Sequence[pathlib.Path],
    root: pathlib.Path,
    kind: str,
    read: Callable[[bytes], tuple[int, int]],
    missing: str,
    load: Callable[[pathlib.Path], bytes] | None = None,
) -> tuple[list[bytes], int, int]:
    """The bytes of a video's frames, and their common height and width.

    Args:
        root: of the raw data set, which no link to a file may lead out of.
        kind: 'JPEG' or 'PNG', for messages.
        read: checks a whole picture and returns its (height, width), or raises BrokenPicture.
        missing: why a frame should exist, for messages.
        load: gives the bytes of a path that is in an archive, and raises like `files.read_bytes`, the default.

    Raises:
        FileNotFoundError: a frame is missing.
        ValueError: a frame is broken, their sizes differ, or they have more bytes than a record can hold.
    """
    found: list[bytes] = []
    sizes: list[tuple[int, int]] = []
    total = 0
    for path in paths:
        try:
            found.append(load(path) if load else files.read_bytes(path, pictures.LARGEST, root))
            sizes.append(read(found[-1]))
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{path}: missing{missing}. Unpack the frames again.') from error
        except pictures.BrokenPicture as error:
            raise ValueError(f'{path}: broken {kind} ({error}). Unpack this frame again.') from error
        (height, width), first = sizes[-1], sizes[0]
        if (height, width) != first:
            raise ValueError(
                f'{path}: is {width}x{height} pixels, but {paths[0].name} of the same video is '
                f'{first[1]}x{first[0]}. Frames of one video have one size; unpack them again.'
            )
        total = add_bytes(total, found[-1], path.parent)
    height, width = sizes[0]
    metadata.check_frame_size(height, width, f'{paths[0]}')
    return found, height, width


def add_bytes(total: int, data: bytes, where: pathlib.Path) -> int:
    """`total` plus the size of `data`; raises ValueError if a record cannot hold so many bytes."""
    total += len(data)
    if total > decoding.LARGEST_RECORD:
        raise ValueError(f'{where}: has more than {decoding.LARGEST_RECORD:,} bytes for one video. Leave it out.')
    return total


def field(content: object, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A field of an object of JSON.

    Args:
        kind: the type that its value must have; several: a string, or what stands for one.

    Raises:
        ValueError: beginning with `where`: the field is missing or of another type.
    """
    if not isinstance(content, dict) or name not in content:
        raise ValueError(f'{where}: field "{name}" is missing. Add it, or copy the file again from the archive.')
    if not isinstance(content[name], kind):
        raise ValueError(
            f'{where}: field "{name}" has the type {type(content[name]).__name__}, must be '
            f'{kind.__name__ if isinstance(kind, type) else "a string"}. Copy the file again from the '
            'archive.'
        )
    return content[name]


def video_fields(file: pathlib.Path, name: str, content: object) -> tuple[list[str], dict[str, Any]]:
    """The names of the frames and the expressions of a video in an expressions file.

    Raises:
        ValueError: a field is missing or empty, a name is not a valid file name, or a frame is named twice; names
            file, video and field.
    """
    where = f'{file}: video {name}'
    files.check_name(name, f'{file}: field "videos", the name of a video')
    frames = field(content, 'frames', list, where)
    if not frames:
        raise ValueError(f'{where}: field "frames" must be a list of frame names, is empty. Add them.')
    for frame in frames:
        files.check_name(frame, f'{where}: field "frames", a name')
    if len(set(frames)) != len(frames):
        raise ValueError(f'{where}: field "frames" names a frame twice. Remove the second.')
    expressions = field(content, 'expressions', dict, where)
    if not expressions:
        raise ValueError(f'{where}: field "expressions" is empty. Add a sentence or remove the video.')
    return frames, expressions
