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
import dataclasses
import json
import pathlib

from absl import logging
import numpy as np
from PIL import Image

from datasets.video_records import encode_png

VOID = 255  # DAVIS marks pixels that are not scored so; it is never an object.
SPLITS = ('train', 'valid', 'test')


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

    challenge: whether the expressions file is that of the public ground truth, which names objects.
    """
    name: str
    expressions_file: pathlib.Path
    frame_folders: tuple[pathlib.Path, ...]
    mask_folders: tuple[pathlib.Path, ...]
    challenge: bool


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
        challenge = challenge_file.exists() and any(folder.is_dir() for folder in masks)
        plain_file = raw / 'meta_expressions' / name / 'meta_expressions.json'
        expressions = challenge_file if challenge else plain_file
        absent = [] if expressions.exists() else [str(expressions)]
        if not any(folder.is_dir() for folder in frames):
            absent.append(' or '.join(map(str, frames)))
        if not absent:
            found[name] = Split(name, expressions, frames, masks, challenge)
        missing += absent
        # Half a split is more likely an accident than a choice, but the file of test has a use by itself.
        if len(absent) == 1 and name != 'test':
            logging.warning('Split %r is not built: %s does not exist.', name, absent[0])
    if not found:
        raise FileNotFoundError(
            f'{raw}: no split of the data set is there. A split needs its expressions file and its frames; '
            'none of these exist: ' + ', '.join(missing) + '. Unpack the archives there, or mend --raw.')
    return found


def read_videos(split: Split) -> list[Video]:
    """Every video of an expressions file, sorted by name.

    Raises:
        ValueError: for a file that is no JSON, a missing field, an empty sentence, a bad object id.
    """
    file = split.expressions_file
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{file}: is not JSON ({error}). Copy it again from the archive.') from error
    videos = _field(content, 'videos', dict, f'{file}')
    if not videos and split.name != 'test':  # without test videos, valid is whole
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
    if test_file.exists():
        test = {video.name for video in read_videos(
            dataclasses.replace(split, name='test', expressions_file=test_file, challenge=False))}
        kept = [video for video in videos if video.name not in test]
        how = f'minus the videos of {test_file}'
    else:
        kept = [video for video in videos
                if any((folder / video.name).is_dir() for folder in split.frame_folders)]
        how = f'with a folder in {split.frame_folders[0]}'
        logging.warning('%s does not exist, so the test videos are told by their missing frames: valid is '
                        'the %d of %d videos %s.', test_file, len(kept), len(videos), how)
    if not kept:
        raise ValueError(f'{split.expressions_file}: none of its {len(videos)} videos is left {how}. '
                         'Check that both belong to the same release.')
    return kept


def frame_files(split: Split, video: Video) -> list[pathlib.Path]:
    """The JPEGs of a video in order. Raises FileNotFoundError when its folder is missing or empty."""
    folder = _video_folder(split.frame_folders, video, split, 'frames')
    if not video.frames:
        raise FileNotFoundError(f'{folder}: holds no frames. Unpack them again.')
    return [folder / f'{name}.jpg' for name in video.frames]


def check_frames(files: list[pathlib.Path], split: Split) -> tuple[int, int]:
    """Decodes every frame of a video and returns their common (height, width).

    Raises:
        FileNotFoundError: for a frame that is listed and not there.
        ValueError: for a broken or truncated JPEG, and for frames of different sizes.
    """
    first = None
    for file in files:
        try:
            size = check_jpeg(file)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{file}: missing, though listed in {split.expressions_file} or named by a '
                                    'mask. Unpack the frames again.') from error
        first = first or size
        if size != first:
            raise ValueError(f'{file}: is {size[1]}x{size[0]} pixels, but {files[0].name} of the same video '
                             f'is {first[1]}x{first[0]}. Frames of one video have one size; '
                             'unpack them again.')
    return first


def check_jpeg(file: pathlib.Path) -> tuple[int, int]:
    """Decodes a JPEG and returns its (height, width) as stored, whatever a camera's orientation tag says.

    Raises:
        FileNotFoundError: when it is not there.
        ValueError: for a broken or truncated one, and for another format.
    """
    try:
        with Image.open(file) as image:
            if image.format != 'JPEG':
                raise ValueError(f'{file}: is {image.format}, not JPEG. Store the frame as JPEG.')
            size = image.height, image.width
            image.draft('RGB', (1, 1))  # Every byte is read, an eighth of the pixels is computed.
            image.load()
            return size
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f'{file}: broken JPEG ({error}). Unpack this frame again.') from error


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
        logging.warning('Video %s has no masks in %s: its ground truth stays hidden.', video.name,
                        ' or '.join(map(str, split.mask_folders)))  # Part of the public ground truth is of use too.
        return []
    folder = _video_folder(split.mask_folders, video, split, 'masks')
    if any(path.is_dir() for path in folder.iterdir()):
        maps = _merge_expressions(folder, video, height, width)
        masks = [encode_png(index) for index in maps]
    else:
        files = [folder / f'{name}.png' for name in video.frames]
        maps = (_read_index_png(file, height, width) for file in files)
        masks = [file.read_bytes() for file in files if file.exists()]  # A missing one is named just below.
    counts = sum(np.bincount(index.ravel(), minlength=256) for index in maps)
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
    frames = _field(content, 'frames', list, where)
    if not frames or not all(isinstance(frame, str) and frame for frame in frames):
        raise ValueError(f'{where}: field "frames" must be a list of frame names, is {frames!r:.80}.')
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
    text = _field(content, 'exp', str, where)
    if not text.strip():
        raise ValueError(f'{where}: field "exp" is an empty sentence. Write one, or remove the expression.')
    object_id = -1
    if split.name == 'train' or split.challenge or 'obj_id' in content:
        value = _field(content, 'obj_id', (str, int), where)
        try:
            object_id = int(value)
        except ValueError:
            pass
        if not 0 < object_id < VOID:
            raise ValueError(f'{where}: field "obj_id" must be a whole number from 1 to {VOID - 1}, '
                             f'is {value!r}.')
    tags = content.get('tags', [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag.split() == [tag] for tag in tags):
        raise ValueError(f'{where}: field "tags" must be a list of words, is {tags!r}.')
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


def _read_index_png(file: pathlib.Path, height: int, width: int) -> np.ndarray:
    try:
        with Image.open(file) as image:
            if image.mode not in ('P', 'L', '1'):
                raise ValueError(f'{file}: has the colour mode {image.mode}; a mask holds object ids as '
                                 'palette indices (mode P) or grey values (mode L). Save it so, not '
                                 'as colours.')
            index = np.asarray(image, np.uint8)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{file}: missing; every frame needs its mask, also an empty one. '
                                'Unpack the masks again.') from error
    except (OSError, SyntaxError) as error:  # Pillow raises both.
        raise ValueError(f'{file}: broken PNG ({error}). Unpack this mask again.') from error
    if index.shape != (height, width):
        raise ValueError(f'{file}: the mask is {index.shape[1]}x{index.shape[0]} pixels, its frame '
                         f'{width}x{height}. Take frames and masks of the same release, at the same size.')
    return index


def _merge_expressions(folder: pathlib.Path, video: Video, height: int, width: int) -> list[np.ndarray]:
    maps = []
    for frame in video.frames:
        merged = np.zeros((height, width), np.uint8)
        drawn = {}
        for expression in video.expressions:
            file = folder / expression.id / f'{frame}.png'
            index = _read_index_png(file, height, width)
            strange = sorted(set(np.unique(index).tolist()) - {0, 1, 255})
            if strange:
                raise ValueError(f'{file}: holds the values {strange}; a mask of one expression is '
                                 '0 and 255.')
            mask = index > 0
            earlier = drawn.setdefault(expression.object_id, (expression.id, mask))
            if not np.array_equal(earlier[1], mask):
                raise ValueError(f'{file}: differs from the mask of expression {earlier[0]}, though both '
                                 f'refer to obj_id {expression.object_id}. Mend "obj_id" or the masks.')
            other = sorted(set(np.unique(merged[mask]).tolist()) - {0, expression.object_id})
            if other:
                raise ValueError(f'{file}: obj_id {expression.object_id} claims pixels that obj_id '
                                 f'{other[0]} has (expression {drawn[other[0]][0]}). Mend "obj_id" '
                                 'or the masks.')
            merged[mask] = expression.object_id
        maps.append(merged)
    return maps
