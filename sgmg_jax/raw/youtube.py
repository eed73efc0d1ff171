"""Reads the raw Ref-YouTube-VOS layout.

    meta_expressions/<split>/meta_expressions.json
    <split>/JPEGImages/<video>/<frame>.jpg
    <split>/Annotations/<video>/<frame>.png          palette indices, one PNG per frame
    <split>/Annotations/<video>/<expression>/<frame>.png   binary, one folder per expression, with
    <split>/meta_expressions_challenge.json                the public ground truth of `valid`

Only annotated frames are released: their names start anywhere and have gaps, so they come from the expressions file.
Checks are strict: every error names file, video, expression and field, and how to fix it.
"""

from collections.abc import Iterator
import dataclasses
import functools
import pathlib
import reprlib
from typing import Any

from jaxtyping import UInt8
import numpy as np

from sgmg_jax import files, pictures
from sgmg_jax.data.decoding import check_jpeg
from sgmg_jax.data.metadata import VOID, Expression, check_sentence, parse_object_id
from sgmg_jax.raw import common

LARGEST_JSON = 2**26  # bytes of an expressions file; train's has a fiftieth of it
FRAME_ENDINGS = '.jpg', '.jpeg'
SPLITS = ('train', 'valid', 'test')
FRAME_FOLDERS = ('{split}/JPEGImages',)
MASK_FOLDERS = ('{split}/Annotations',)


@dataclasses.dataclass(frozen=True)
class Video:
    """A video of the expressions file; `frames` are sorted names without ending."""

    name: str
    frames: tuple[str, ...]
    expressions: tuple[Expression, ...]


@dataclasses.dataclass(frozen=True)
class Split:
    """The paths of one split. Each video is read from the first of the frame (or mask) folders that has it.

    root: of the raw data set, which no link to a file may lead out of.
    challenge: whether the expressions file belongs to the public ground truth, which gives object ids.
    """

    name: str
    root: pathlib.Path
    expressions_file: pathlib.Path
    frame_folders: tuple[pathlib.Path, ...]
    mask_folders: tuple[pathlib.Path, ...]
    challenge: bool


def splits(
    root: pathlib.Path,
    frame_folders: tuple[str, ...] = FRAME_FOLDERS,
    mask_folders: tuple[str, ...] = MASK_FOLDERS,
    hidden_test: bool = True,
) -> common.Splits:
    """The videos of each split, and the function that reads one; checks every expressions file.

    Args:
        root: of the raw data set.
        frame_folders, mask_folders: see `find_splits`.
        hidden_test: see `select_videos`.

    Raises:
        OSError, ValueError: like `find_splits`, `read_videos` and `select_videos`.
    """
    found = find_splits(root, frame_folders, mask_folders).values()
    return {
        split.name: (select_videos(root, split, videos, hidden_test), functools.partial(read_record, split))
        for split in found
        if (videos := read_videos(split))
    }


def read_record(split: Split, video: Video) -> common.Parts:
    """Reads one video. Raises FileNotFoundError or ValueError if a file of it is missing or broken."""
    frames, height, width = read_frames(split, video)
    masks = read_masks(split, video, height, width)
    expressions = [
        {
            'id': expression.id,
            'text': expression.text,
            'object_id': expression.object_id if masks else -1,
            'tags': ' '.join(expression.tags),
        }
        for expression in video.expressions
    ]
    entry = {
        'video': video.name,
        'frame_names': list(video.frames),
        'expressions': expressions,
        'height': height,
        'width': width,
    }
    return entry, {'has_masks': bool(masks)}, {'frames': frames, 'masks': masks}


def find_splits(raw: pathlib.Path, frame_folders: tuple[str, ...], mask_folders: tuple[str, ...]) -> dict[str, Split]:
    """The splits whose expressions file and frame folder both exist, by name.

    Args:
        raw: root of the raw data set.
        frame_folders: candidates relative to `raw`; '{split}' stands for the split's name.
        mask_folders: the same for the masks.

    Raises:
        FileNotFoundError: there is no split; names every path tried.
    """
    found: dict[str, Split] = {}
    missing: list[str] = []
    for name in SPLITS:
        frames = tuple(raw / folder.format(split=name) for folder in frame_folders)
        masks = tuple(raw / folder.format(split=name) for folder in mask_folders)
        challenge_file = raw / name / 'meta_expressions_challenge.json'
        challenge = common.there(challenge_file) and any(folder.is_dir() for folder in masks)
        plain_file = raw / 'meta_expressions' / name / 'meta_expressions.json'
        expressions = challenge_file if challenge else plain_file
        absent = [] if common.there(expressions) else [str(expressions)]
        if not any(folder.is_dir() for folder in frames):
            absent.append(' or '.join(map(str, frames)))
        if not absent:
            found[name] = Split(name, raw, expressions, frames, masks, challenge)
        missing += absent
        # Half a split is probably an accident, except that test's expressions file is useful alone.
        if len(absent) == 1 and name != 'test':
            common.warn('Split %r is not built: %s does not exist.', name, absent[0])
    if not found:
        raise FileNotFoundError(
            f'{raw}: no split of the data set is there. A split needs its expressions file and its frames; '
            'none of these exist: ' + ', '.join(missing) + '. Unpack the archives there, or correct --raw.'
        )
    return found


def read_videos(split: Split) -> list[Video]:
    """All videos of an expressions file, sorted by name.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, a field is missing, a sentence is empty, an object id is wrong, or a name is not a
            valid file name.
    """
    file = split.expressions_file
    videos = common.field(files.read_json(file, LARGEST_JSON, split.root), 'videos', dict, f'{file}')
    if not videos and split.name == 'test':
        common.warn('%s: lists no video, so there is no split %r.', file, split.name)  # Then valid keeps all videos.
    elif not videos:
        raise ValueError(f'{file}: field "videos" is empty. Copy the file again from the archive.')
    return [_read_video(split, name, videos[name]) for name in sorted(videos)]


def select_videos(raw: pathlib.Path, split: Split, videos: list[Video], hidden_test: bool) -> list[Video]:
    """Removes from `valid` the test videos, which share its expressions file.

    The data set's protocol: valid = videos of the valid file minus videos of the test file. Without a test file, the
    videos that have frames, with a warning.

    Args:
        hidden_test: whether the data set has a test split inside `valid` (Ref-YouTube-VOS does).

    Raises:
        ValueError: no video is left.
    """
    if split.name != 'valid' or not hidden_test:
        return videos
    test_file = raw / 'meta_expressions' / 'test' / 'meta_expressions.json'
    if common.there(test_file):
        test = {
            video.name
            for video in read_videos(
                dataclasses.replace(split, name='test', expressions_file=test_file, challenge=False)
            )
        }
        kept = [video for video in videos if video.name not in test]
        how = f'minus the videos of {test_file}'
    else:
        kept = [video for video in videos if any((folder / video.name).is_dir() for folder in split.frame_folders)]
        how = f'with a folder in {split.frame_folders[0]}'
        common.warn(
            '%s does not exist, so videos without frames are taken for test videos: valid is the %d of %d videos %s.',
            test_file,
            len(kept),
            len(videos),
            how,
        )
    if not kept:
        raise ValueError(
            f'{split.expressions_file}: none of its {len(videos)} videos is left {how}. '
            'Check that both are of the same release.'
        )
    return kept


def read_frames(split: Split, video: Video) -> tuple[list[bytes], int, int]:
    """The JPEGs of a video in order, after decoding all of them, and their common height and width.

    Raises:
        FileNotFoundError: its folder is missing or empty, or a listed frame is missing.
        ValueError: a JPEG is broken or truncated, or the sizes differ.
    """
    folder = _video_folder(split.frame_folders, video, split, 'frames')
    if not video.frames:
        raise FileNotFoundError(f'{folder}: holds no frames. Unpack them again.')
    return common.read_frames(
        common.find_files(folder, video.frames, *FRAME_ENDINGS),
        split.root,
        'JPEG',
        check_jpeg,
        f', though listed in {split.expressions_file} or named by a mask',
    )


def read_masks(split: Split, video: Video, height: int, width: int) -> list[bytes]:
    """One index PNG per frame of a video, in order; empty if the split has no ground truth.

    Palette PNGs are kept byte for byte, including the void value 255. Binary PNGs, one folder per expression, are
    merged into one PNG of object ids per frame.

    Raises:
        FileNotFoundError: a folder or PNG is missing.
        ValueError: a mask has another size than its frame or a colour mode, two objects overlap, or an object id is
            in no mask of the video.
    """
    if all(expression.object_id < 0 for expression in video.expressions):
        return []
    if split.challenge and not any((folder / video.name).is_dir() for folder in split.mask_folders):
        common.warn(
            'Video %s has no masks in %s: its ground truth stays hidden.',
            video.name,
            ' or '.join(map(str, split.mask_folders)),
        )  # A part of the public ground truth is useful too.
        return []
    folder = _video_folder(split.mask_folders, video, split, 'masks')
    of_expressions = {expression.id for expression in video.expressions} & set(files.listing(folder)[0])
    binary = of_expressions and not files.by_stem(folder, '.png').keys() & set(video.frames)
    masks: list[bytes] = []
    values: set[int] = set()
    total = 0
    for index, data in (_merge_expressions if binary else _index_masks)(split, folder, video, height, width):
        masks.append(data)
        values |= set(np.flatnonzero(np.bincount(index.ravel())).tolist())
        total = common.add_bytes(total, data, folder)
    ids = sorted(values - {0, VOID})
    for expression in video.expressions:
        if expression.object_id not in ids:
            raise ValueError(
                f'{split.expressions_file}: video {video.name}, expression {expression.id}: obj_id '
                f'{expression.object_id} is in no mask of {folder}, which hold the ids {ids}. '
                'Correct "obj_id", or take expressions and masks of the same release.'
            )
    return masks


def _read_video(split: Split, name: str, content: Any) -> Video:
    where = f'{split.expressions_file}: video {name}'
    frames, expressions = common.video_fields(split.expressions_file, name, content)
    parsed = tuple(
        _read_expression(split, key, value, f'{where}, expression {key}') for key, value in expressions.items()
    )
    if len({expression.object_id < 0 for expression in parsed}) > 1:
        bare = next(expression.id for expression in parsed if expression.object_id < 0)
        raise ValueError(
            f'{where}, expression {bare}: field "obj_id" is missing, though other expressions '
            'of the video have it. Add it to all, or remove it from all.'
        )
    return Video(name, tuple(sorted(frames)), parsed)


def _read_expression(split: Split, key: str, content: Any, where: str) -> Expression:
    files.check_name(key, f'{where}: the id of an expression')
    text = check_sentence(common.field(content, 'exp', str, where), f'{where}: field "exp"')
    object_id = -1
    if split.name == 'train' or split.challenge or 'obj_id' in content:
        object_id = parse_object_id(common.field(content, 'obj_id', (str, int), where)) or 0
        if not object_id:
            raise ValueError(
                f'{where}: field "obj_id" must be a whole number from 1 to {VOID - 1}, '
                f'is {reprlib.repr(content["obj_id"])}. Correct it.'
            )
    tags = content.get('tags', [])
    if not isinstance(tags, list) or not all(
        isinstance(tag, str) and tag.split() == [tag] and tag.isprintable() for tag in tags
    ):
        raise ValueError(f'{where}: field "tags" must be a list of words, is {reprlib.repr(tags)}. Correct it.')
    return Expression(key, text, object_id, tuple(tags))


def _video_folder(folders: tuple[pathlib.Path, ...], video: Video, split: Split, what: str) -> pathlib.Path:
    for folder in folders:
        if (folder / video.name).is_dir():
            return folder / video.name
    raise FileNotFoundError(
        f'{" or ".join(str(folder / video.name) for folder in folders)}: missing folder '
        f'with the {what} of video {video.name}, which {split.expressions_file} lists. '
        'Unpack it there, or remove the video from the file.'
    )


def _index_masks(
    split: Split, folder: pathlib.Path, video: Video, height: int, width: int
) -> Iterator[tuple[UInt8[np.ndarray, 'H W'], bytes]]:
    for file in common.find_files(folder, video.frames, '.png'):
        yield _read_index_png(split, file, height, width)


def _read_index_png(
    split: Split, file: pathlib.Path, height: int, width: int
) -> tuple[UInt8[np.ndarray, 'H W'], bytes]:
    """The values of a PNG, and its bytes."""
    try:
        data = files.read_bytes(file, pictures.LARGEST, split.root)
        header = pictures.read_header(data, (pictures.PNG,))
        if header.mode not in ('P', 'L', '1'):
            raise ValueError(
                f'{file}: has the colour mode {header.mode}; a mask holds object ids as palette indices '
                '(mode P) or grey values (mode L). Save it in one of these modes.'
            )
        if (header.height, header.width) != (height, width):
            raise ValueError(
                f'{file}: the mask is {header.width}x{header.height} pixels, its frame '
                f'{width}x{height}. Take frames and masks of the same release, at the same size.'
            )
        return np.asarray(pictures.read_pixels(data, (pictures.PNG,)), np.uint8), data
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{file}: missing; every frame needs a mask, even an empty one. Unpack the masks again.'
        ) from error
    except pictures.BrokenPicture as error:
        raise ValueError(f'{file}: broken PNG ({error}). Unpack this mask again.') from error


def _merge_expressions(
    split: Split, folder: pathlib.Path, video: Video, height: int, width: int
) -> Iterator[tuple[UInt8[np.ndarray, 'H W'], bytes]]:
    paths = {
        expression.id: common.find_files(folder / expression.id, video.frames, '.png')
        for expression in video.expressions
        if (folder / expression.id).is_dir()
    }
    for number, frame in enumerate(video.frames):
        merged = np.zeros((height, width), np.uint8)
        drawn: dict[int, str] = {}
        for expression in video.expressions:
            of_expression = paths.get(expression.id)
            file = of_expression[number] if of_expression else folder / expression.id / f'{frame}.png'
            index, _ = _read_index_png(split, file, height, width)
            strange = sorted(set(np.unique(index).tolist()) - {0, 1, 255})
            if strange:
                raise ValueError(
                    f'{file}: holds the values {strange}; a mask of one expression must be 0 and 255. Unpack it again.'
                )
            mask = index > 0
            earlier = drawn.setdefault(expression.object_id, expression.id)
            if earlier != expression.id:
                if not np.array_equal(merged == expression.object_id, mask):
                    raise ValueError(
                        f'{file}: differs from the mask of expression {earlier}, though both '
                        f'refer to obj_id {expression.object_id}. Correct "obj_id" or the masks.'
                    )
                continue
            other = sorted(set(np.unique(merged[mask]).tolist()) - {0})
            if other:
                raise ValueError(
                    f'{file}: obj_id {expression.object_id} claims pixels that obj_id '
                    f'{other[0]} has (expression {drawn[other[0]]}). Correct "obj_id" or the masks.'
                )
            merged[mask] = expression.object_id
        yield merged, common.encode_png(merged)
