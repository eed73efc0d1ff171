"""The raw Ref-YouTube-VOS layout: find what is there, check it, and say how to mend what is wrong.

    meta_expressions/<split>/meta_expressions.json
    <split>/JPEGImages/<video>/<frame>.jpg
    <split>/Annotations/<video>/<frame>.png          palette indices, one PNG a frame
    <split>/Annotations/<video>/<expression>/<frame>.png   binary, one folder an expression, with
    <split>/meta_expressions_challenge.json                the public ground truth of `valid`

Only annotated frames are shipped: names start anywhere and leave gaps, so they are read from the
expressions file, never made up. Checks are strict: whatever is wrong is an error that names file,
video, expression and field.
"""
from collections.abc import Iterator
import dataclasses
import functools
import pathlib
import reprlib

import numpy as np

from sgmg_jax import files, pictures
from sgmg_jax.data.metadata import VOID, check_sentence, parse_object_id
from sgmg_jax.data.records import check_jpeg
from sgmg_jax.raw import common

LARGEST_JSON = 2 ** 26  # bytes of an expressions file; that of train has a fiftieth of it
FRAME_ENDINGS = '.jpg', '.jpeg'
SPLITS = ('train', 'valid', 'test')
FRAME_FOLDERS = ('{split}/JPEGImages',)
MASK_FOLDERS = ('{split}/Annotations',)


@dataclasses.dataclass(frozen=True)
class Expression:
    """One sentence; `object_id` is the value of its object in the masks, -1 where it is hidden."""
    id: str
    text: str
    object_id: int
    tags: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Video:
    """What the expressions file lists of one video; `frames` are names without ending, sorted."""
    name: str
    frames: tuple[str, ...]
    expressions: tuple[Expression, ...]


@dataclasses.dataclass(frozen=True)
class Split:
    """Where one split lies. Of the frame and mask folders the first that holds a video is taken.

    root: of the raw data set, which no link to a file may lead out of.
    challenge: whether the expressions file is that of the public ground truth, which names objects.
    """
    name: str
    root: pathlib.Path
    expressions_file: pathlib.Path
    frame_folders: tuple[pathlib.Path, ...]
    mask_folders: tuple[pathlib.Path, ...]
    challenge: bool


def splits(root: pathlib.Path, frame_folders: tuple[str, ...] = FRAME_FOLDERS,
           mask_folders: tuple[str, ...] = MASK_FOLDERS, hidden_test: bool = True) -> common.Splits:
    """The videos of each split, and how one is read; every expressions file is checked.

    Args:
        root: of the raw data set.
        frame_folders, mask_folders: as in `find_splits`.
        hidden_test: as in `select_videos`.

    Raises:
        OSError, ValueError: as `find_splits`, `read_videos` and `select_videos`.
    """
    found = find_splits(root, frame_folders, mask_folders).values()
    return {split.name: (select_videos(root, split, videos, hidden_test), functools.partial(read_record, split))
            for split in found if (videos := read_videos(split))}


def read_record(split: Split, video: Video) -> common.Parts:
    """Raises FileNotFoundError and ValueError: a file of the video is missing or broken."""
    frames, height, width = read_frames(split, video)
    masks = read_masks(split, video, height, width)
    expressions = [{'id': expression.id, 'text': expression.text, 'object_id': expression.object_id if masks else -1,
                    'tags': ' '.join(expression.tags)} for expression in video.expressions]
    entry = {'video': video.name, 'frame_names': list(video.frames), 'expressions': expressions,
             'height': height, 'width': width}
    return entry, {'has_masks': bool(masks)}, {'frames': frames, 'masks': masks}


def find_splits(raw: pathlib.Path, frame_folders: tuple[str, ...], mask_folders: tuple[str, ...]
                ) -> dict[str, Split]:
    """The splits whose expressions file and frame folder both exist, by name.

    Args:
        raw: root of the raw data set.
        frame_folders: candidates relative to `raw`; '{split}' stands for the split's name.
        mask_folders: the same for the masks.

    Raises:
        FileNotFoundError: when there is no split at all; names every path that was looked for.
    """
    found, missing = {}, []
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
        # Half a split is more likely an accident than a choice, but the file of test has a use by itself.
        if len(absent) == 1 and name != 'test':
            common.warn('Split %r is not built: %s does not exist.', name, absent[0])
    if not found:
        raise FileNotFoundError(
            f'{raw}: no split of the data set is there. A split needs its expressions file and its frames; '
            'none of these exist: ' + ', '.join(missing) + '. Unpack the archives there, or mend --raw.')
    return found


def read_videos(split: Split) -> list[Video]:
    """Every video of an expressions file, sorted by name.

    Raises:
        OSError: the file cannot be read.
        ValueError: for a file that is no JSON, a missing field, an empty sentence, a bad object id, a name that cannot
            be one of a file.
    """
    file = split.expressions_file
    videos = _field(files.read_json(file, LARGEST_JSON, split.root), 'videos', dict, f'{file}')
    if not videos and split.name == 'test':
        common.warn('%s: lists no video, so there is no split %r.', file, split.name)  # Then valid is whole.
    elif not videos:
        raise ValueError(f'{file}: field "videos" is empty. Copy the file again from the archive.')
    return [_read_video(split, name, videos[name]) for name in sorted(videos)]


def select_videos(raw: pathlib.Path, split: Split, videos: list[Video], hidden_test: bool) -> list[Video]:
    """Leaves out of `valid` the videos of the test phase, which share its expressions file.

    The benchmark's protocol: valid = keys of the valid file minus keys of the test file. Where the
    test file is missing, the videos whose frames are there are taken, with a warning.

    Args:
        hidden_test: whether the data set has a test split inside `valid` (Ref-YouTube-VOS does).

    Raises:
        ValueError: when no video is left.
    """
    if split.name != 'valid' or not hidden_test:
        return videos
    test_file = raw / 'meta_expressions' / 'test' / 'meta_expressions.json'
    if common.there(test_file):
        test = {video.name for video in read_videos(
            dataclasses.replace(split, name='test', expressions_file=test_file, challenge=False))}
        kept = [video for video in videos if video.name not in test]
        how = f'minus the videos of {test_file}'
    else:
        kept = [video for video in videos
                if any((folder / video.name).is_dir() for folder in split.frame_folders)]
        how = f'with a folder in {split.frame_folders[0]}'
        common.warn('%s does not exist, so the test videos are told by their missing frames: valid is '
                    'the %d of %d videos %s.', test_file, len(kept), len(videos), how)
    if not kept:
        raise ValueError(f'{split.expressions_file}: none of its {len(videos)} videos is left {how}. '
                         'Check that both belong to the same release.')
    return kept


def read_frames(split: Split, video: Video) -> tuple[list[bytes], int, int]:
    """The JPEGs of a video in order, all of which are decoded, and their common height and width.

    Raises:
        FileNotFoundError: when its folder is missing or empty, or a frame that is listed is not there.
        ValueError: for a broken or truncated JPEG, and for frames of different sizes.
    """
    folder = _video_folder(split.frame_folders, video, split, 'frames')
    if not video.frames:
        raise FileNotFoundError(f'{folder}: holds no frames. Unpack them again.')
    return common.read_frames(
        common.find_files(folder, video.frames, *FRAME_ENDINGS), split.root, 'JPEG', check_jpeg,
        f', though listed in {split.expressions_file} or named by a mask')


def read_masks(split: Split, video: Video, height: int, width: int) -> list[bytes]:
    """Index PNGs of a video, one a frame in order; empty where the split has no ground truth.

    Palette PNGs are kept byte for byte, so a void value of 255 survives. Binary PNGs, one folder an
    expression, are merged into one PNG of object ids a frame.

    Raises:
        FileNotFoundError: for a missing folder or PNG.
        ValueError: for a mask of another size than its frame, of a colour mode, for two objects on
            one pixel, and for an object id that is in no mask of the video.
    """
    if all(expression.object_id < 0 for expression in video.expressions):
        return []
    if split.challenge and not any((folder / video.name).is_dir() for folder in split.mask_folders):
        common.warn('Video %s has no masks in %s: its ground truth stays hidden.', video.name,
                    ' or '.join(map(str, split.mask_folders)))  # Part of the public ground truth is of use too.
        return []
    folder = _video_folder(split.mask_folders, video, split, 'masks')
    binary = {expression.id for expression in video.expressions} & set(files.listing(folder)[0])
    binary = binary and not files.by_stem(folder, '.png').keys() & set(video.frames)
    masks, counts, total = [], np.zeros(256, np.int64), 0
    for index, data in (_merge_expressions if binary else _index_masks)(split, folder, video, height, width):
        masks.append(data)
        counts += np.bincount(index.ravel(), minlength=256)
        total = common.add_bytes(total, data, folder)
    ids = [value for value in np.flatnonzero(counts).tolist() if value not in (0, VOID)]
    for expression in video.expressions:
        if expression.object_id not in ids:
            raise ValueError(
                f'{split.expressions_file}: video {video.name}, expression {expression.id}: obj_id '
                f'{expression.object_id} is in no mask of {folder}, which hold the ids {ids}. '
                'Mend "obj_id", or take expressions and masks of the same release.')
    return masks


def _read_video(split: Split, name: str, content: dict) -> Video:
    where = f'{split.expressions_file}: video {name}'
    files.check_name(name, f'{split.expressions_file}: field "videos", the name of a video')
    frames = _field(content, 'frames', list, where)
    if not frames:
        raise ValueError(f'{where}: field "frames" must be a list of frame names, is empty.')
    for frame in frames:
        files.check_name(frame, f'{where}: field "frames", a name')
    if len(set(frames)) != len(frames):
        raise ValueError(f'{where}: field "frames" names a frame twice. Remove the second.')
    expressions = _field(content, 'expressions', dict, where)
    if not expressions:
        raise ValueError(f'{where}: field "expressions" is empty. Add a sentence or remove the video.')
    parsed = tuple(_read_expression(split, key, value, f'{where}, expression {key}')
                   for key, value in expressions.items())
    if len({expression.object_id < 0 for expression in parsed}) > 1:
        bare = next(expression.id for expression in parsed if expression.object_id < 0)
        raise ValueError(f'{where}, expression {bare}: field "obj_id" is missing, though other expressions '
                         'of the video have it. Add it to all, or remove it from all.')
    return Video(name, tuple(sorted(frames)), parsed)


def _read_expression(split: Split, key: str, content: dict, where: str) -> Expression:
    files.check_name(key, f'{where}: the id of an expression')
    text = check_sentence(_field(content, 'exp', str, where), f'{where}: field "exp"')
    object_id = -1
    if split.name == 'train' or split.challenge or 'obj_id' in content:
        object_id = parse_object_id(_field(content, 'obj_id', (str, int), where))
        if object_id is None:
            raise ValueError(f'{where}: field "obj_id" must be a whole number from 1 to {VOID - 1}, '
                             f'is {reprlib.repr(content["obj_id"])}.')
    tags = content.get('tags', [])
    if not isinstance(tags, list) or not all(
            isinstance(tag, str) and tag.split() == [tag] and tag.isprintable() for tag in tags):
        raise ValueError(f'{where}: field "tags" must be a list of words, is {reprlib.repr(tags)}.')
    return Expression(key, text, object_id, tuple(tags))


def _field(content, name: str, kind: type | tuple[type, ...], where: str):
    if not isinstance(content, dict) or name not in content:
        raise ValueError(f'{where}: field "{name}" is missing. Add it, or copy the file again from '
                         'the archive.')
    if not isinstance(content[name], kind):
        raise ValueError(f'{where}: field "{name}" has the type {type(content[name]).__name__}; the layout '
                         f'wants {kind.__name__ if isinstance(kind, type) else "a string"}.')
    return content[name]


def _video_folder(folders: tuple[pathlib.Path, ...], video: Video, split: Split, what: str) -> pathlib.Path:
    for folder in folders:
        if (folder / video.name).is_dir():
            return folder / video.name
    raise FileNotFoundError(f'{" or ".join(str(folder / video.name) for folder in folders)}: missing folder '
                            f'with the {what} of video {video.name}, which {split.expressions_file} lists. '
                            'Unpack it there, or remove the video from the file.')


def _index_masks(split: Split, folder: pathlib.Path, video: Video, height: int, width: int
                 ) -> Iterator[tuple[np.ndarray, bytes]]:
    for file in common.find_files(folder, video.frames, '.png'):
        yield _read_index_png(split, file, height, width)


def _read_index_png(split: Split, file: pathlib.Path, height: int, width: int) -> tuple[np.ndarray, bytes]:
    """What a PNG holds, uint8 [H W], and its bytes."""
    try:
        data = files.read_bytes(file, pictures.LARGEST, split.root)
        header = pictures.read_header(data, (pictures.PNG,))
        if header.mode not in ('P', 'L', '1'):
            raise ValueError(f'{file}: has the colour mode {header.mode}; a mask holds object ids as '
                             'palette indices (mode P) or grey values (mode L). Save it so, not '
                             'as colours.')
        if (header.height, header.width) != (height, width):
            raise ValueError(f'{file}: the mask is {header.width}x{header.height} pixels, its frame '
                             f'{width}x{height}. Take frames and masks of the same release, at the same size.')
        return np.asarray(pictures.read_pixels(data, (pictures.PNG,)), np.uint8), data
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{file}: missing; every frame needs its mask, also an empty one. '
                                'Unpack the masks again.') from error
    except pictures.BrokenPicture as error:
        raise ValueError(f'{file}: broken PNG ({error}). Unpack this mask again.') from error


def _merge_expressions(split: Split, folder: pathlib.Path, video: Video, height: int, width: int
                       ) -> Iterator[tuple[np.ndarray, bytes]]:
    paths = {expression.id: common.find_files(folder / expression.id, video.frames, '.png')
             for expression in video.expressions if (folder / expression.id).is_dir()}
    for number, frame in enumerate(video.frames):
        merged = np.zeros((height, width), np.uint8)
        drawn = {}
        for expression in video.expressions:
            of_expression = paths.get(expression.id)
            file = of_expression[number] if of_expression else folder / expression.id / f'{frame}.png'
            index, _ = _read_index_png(split, file, height, width)
            strange = sorted(set(np.unique(index).tolist()) - {0, 1, 255})
            if strange:
                raise ValueError(f'{file}: holds the values {strange}; a mask of one expression is '
                                 '0 and 255.')
            mask = index > 0
            earlier = drawn.setdefault(expression.object_id, expression.id)
            if earlier != expression.id:
                if not np.array_equal(merged == expression.object_id, mask):
                    raise ValueError(f'{file}: differs from the mask of expression {earlier}, though both '
                                     f'refer to obj_id {expression.object_id}. Mend "obj_id" or the masks.')
                continue
            other = sorted(set(np.unique(merged[mask]).tolist()) - {0})
            if other:
                raise ValueError(f'{file}: obj_id {expression.object_id} claims pixels that obj_id '
                                 f'{other[0]} has (expression {drawn[other[0]]}). Mend "obj_id" '
                                 'or the masks.')
            merged[mask] = expression.object_id
        yield merged, common.encode_png(merged)
