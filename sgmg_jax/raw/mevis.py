"""Reads the raw MeViS, both editions (github.com/henghuiding/MeViS).

    {train,valid_u,valid}/JPEGImages/<video>/<frame>.jpg       or JPEGImages.tar, which is read as it is
    {train,valid_u}/mask_dict.json                             masks of each object, see raw/mask_dict.py
    {train,valid_u,valid}/meta_expressions.json                of the second edition: meta_expressions_v2.json, or
                                                               meta_expressions_v2_release.json for valid

A sentence refers to the union of its objects; in the second edition to none if "obj_id" is []. The ground truth of
`valid` is hidden. Objects are known by their `anno_id`; the k-th of a video in that order has the object id k.

Axis letters: T frames.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import os
import pathlib
import reprlib
import tarfile
from typing import Any, NamedTuple

from jaxtyping import UInt8
import numpy as np
from pycocotools import mask as coco_mask

from sgmg_jax import files, pictures
from sgmg_jax.data import decoding, metadata
from sgmg_jax.evaluation import segmentations
from sgmg_jax.raw import common, mask_dict

SPLITS = ('train', 'valid_u', 'valid')
HIDDEN = ('valid',)  # without ground truth
LISTS = ('meta_expressions.json', 'meta_expressions_v2.json', 'meta_expressions_v2_release.json')
MASKS = 'mask_dict.json'
FRAMES, ARCHIVE = 'JPEGImages', 'JPEGImages.tar'
FRAME_ENDINGS = '.jpg', '.jpeg'
LARGEST_JSON = 2**26  # bytes of an expressions file; train's has a tenth of it
TAGS = 'no_target', 'one_object', 'several_objects'  # of an expression, by the number of its objects

Rle = Mapping[str, Any]  # COCO's compressed run lengths


@dataclasses.dataclass(frozen=True)
class Expression:
    """A sentence. objects: anno_ids of the objects whose union it means, without duplicates; None where hidden."""

    id: str
    text: str
    objects: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Video:
    """A video of the expressions file; `frames` are names without ending, in the order of its masks."""

    name: str
    frames: tuple[str, ...]
    expressions: tuple[Expression, ...]


class Archive(NamedTuple):
    """A tar of frames. places: the offset and size in bytes of each file, by video and name."""

    file: pathlib.Path
    places: Mapping[str, Mapping[str, tuple[int, int]]]


@dataclasses.dataclass(frozen=True)
class Split:
    """The files of one split.

    root: of the raw data set, which no link to a file may lead out of.
    frames: the folder of the videos' folders, or the tar in its place.
    masks: None where the ground truth is hidden.
    """

    name: str
    root: pathlib.Path
    expressions_file: pathlib.Path
    frames: pathlib.Path | Archive
    masks: mask_dict.Index | None


def splits(root: pathlib.Path) -> common.Splits:
    """The videos of each split, and the function that reads one; reads all lists and where masks and frames lie.

    Raises:
        OSError, ValueError: like `find_splits` and `read_videos`.
    """
    return {
        split.name: (
            read_videos(split.expressions_file, root, split.name in HIDDEN),
            functools.partial(read_record, split),
        )
        for split in find_splits(root)
    }


def find_splits(root: pathlib.Path) -> list[Split]:
    """The splits of which all files are there; warns of those with only some of them.

    Raises:
        FileNotFoundError: there is no whole split; names every path tried.
        ValueError: a split has several lists of sentences, or a mask_dict.json or tar is damaged; names the file.
    """
    found, missing = [], []
    for name in SPLITS:
        folder = root / name
        lists = [folder / each for each in LISTS if common.there(folder / each)]
        wanted = {
            ' or '.join(str(folder / each) for each in LISTS): bool(lists),
            f'{folder / FRAMES} or {ARCHIVE}': (folder / FRAMES).is_dir() or common.there(folder / ARCHIVE),
        }
        if name not in HIDDEN:
            wanted[str(folder / MASKS)] = common.there(folder / MASKS)
        absent = [path for path, there in wanted.items() if not there]
        missing += absent
        if absent:
            if len(absent) < len(wanted):
                common.warn('Split %r is not built: %s does not exist.', name, ', '.join(absent))
            continue
        if len(lists) > 1:
            raise ValueError(
                f'{folder}: holds {" and ".join(path.name for path in lists)}, the sentences of several editions. Move '
                'all but those of one edition elsewhere.'
            )
        frames = folder / FRAMES if (folder / FRAMES).is_dir() else read_archive(folder / ARCHIVE, root)
        masks = None if name in HIDDEN else mask_dict.read_index(folder / MASKS, root)
        found.append(Split(name, root, lists[0], frames, masks))
    if not found:
        raise FileNotFoundError(
            f'{root}: no split of the data set is there. A split needs its sentences, its frames and, except valid, '
            f'its masks; these do not exist: {", ".join(missing)}. Unpack the archives there, or correct --raw.'
        )
    return found


def read_archive(file: pathlib.Path, root: pathlib.Path | None = None) -> Archive:
    """Finds the frames in a tar, at any depth: .../<video>/<frame>.jpg. Of two files of one name the last counts.

    Raises:
        OSError, ValueError: it cannot be read, or is no tar without compression; and as `files.check_regular`.
    """
    files.check_regular(file, below=root)
    places: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(file, 'r:') as archive:
            while member := archive.next():
                archive.members = []  # type: ignore[attr-defined]  # It would keep all of them.
                parts = pathlib.PurePosixPath(member.name).parts
                if member.isreg() and not member.issparse() and len(parts) > 1 and not files.is_junk(parts[-1]):
                    places.setdefault(parts[-2], {})[parts[-1]] = member.offset_data, member.size
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise ValueError(
            f'{file}: is no readable tar without compression ({files.printable(str(error))}). Download it again.'
        ) from error
    return Archive(file, places)


def read_videos(file: pathlib.Path, root: pathlib.Path | None = None, hidden: bool = False) -> list[Video]:
    """All videos of an expressions file, sorted by name.

    Args:
        hidden: whether its ground truth is; then only the sentences are read.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, a field is missing, a sentence is empty, an id is wrong, or a name is not a valid
            file name; names video, expression and field.
    """
    videos = common.field(files.read_json(file, LARGEST_JSON, root), 'videos', dict, f'{file}')
    if not videos:
        raise ValueError(f'{file}: field "videos" is empty. Copy the file again from the archive.')
    return [_read_video(name, videos[name], file, hidden) for name in sorted(videos)]


def read_record(split: Split, video: Video) -> common.Parts:
    """Reads one video. Raises FileNotFoundError or ValueError if a file of it is missing or broken."""
    frames, height, width = read_frames(split, video)
    numbers: dict[int, int] = {}
    described: dict[str, Any] = {'has_masks': False}
    masks: list[bytes] = []
    if split.masks is not None:
        anno_ids = sorted({number for expression in video.expressions for number in expression.objects or ()})
        numbers = {anno_id: number for number, anno_id in enumerate(anno_ids, 1)}
        found = {numbers[anno_id]: read_masks(split.masks, anno_id, video, (height, width)) for anno_id in anno_ids}
        layers = separate(found)
        masks = _draw(layers, found, (height, width), split.masks.file)
        described = {'has_masks': True, 'mask_layers': layers}
    expressions = [
        {
            'id': expression.id,
            'text': expression.text,
            'object_id': -1 if expression.objects is None else 0,
            'object_ids': ' '.join(map(str, sorted(numbers[anno_id] for anno_id in expression.objects or ()))),
            'tags': '' if expression.objects is None else TAGS[min(len(expression.objects), 2)],
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
    return entry, described, {'frames': frames, 'masks': masks}


def read_frames(split: Split, video: Video) -> tuple[list[bytes], int, int]:
    """The JPEGs of a video in order, after decoding all of them, and their common height and width.

    Raises:
        FileNotFoundError: its folder or a listed frame is missing.
        ValueError: a JPEG is broken or truncated, or the sizes differ.
    """
    missing = f', though listed in {split.expressions_file}'
    if isinstance(split.frames, pathlib.Path):
        folder = split.frames / video.name
        if not folder.is_dir():
            raise FileNotFoundError(f'{folder}: missing folder with frames{missing}. Unpack it there.')
        paths = common.find_files(folder, video.frames, *FRAME_ENDINGS)
        return common.read_frames(paths, split.root, 'JPEG', decoding.check_jpeg, missing)
    archive = split.frames
    there = archive.places.get(video.name, {})
    by_stem = {
        stem: name for name in there for stem, ending in [os.path.splitext(name)] if ending.lower() in FRAME_ENDINGS
    }
    paths = [archive.file / video.name / by_stem.get(frame, f'{frame}.jpg') for frame in video.frames]

    def load(path: pathlib.Path) -> bytes:
        if path.name not in there:
            raise FileNotFoundError(f'{path}: is not in the archive')
        offset, size = there[path.name]
        if size > pictures.LARGEST:
            raise ValueError(
                f'{path}: has {size:,} bytes, at most {pictures.LARGEST:,} are read. Is it the right file?'
            )
        with open(archive.file, 'rb') as stream:
            stream.seek(offset)
            return stream.read(size)

    return common.read_frames(paths, split.root, 'JPEG', decoding.check_jpeg, missing, load)


def read_masks(masks: mask_dict.Index, anno_id: int, video: Video, size: tuple[int, int]) -> list[Rle | None]:
    """The masks of an object in the frames of its video, as compressed run lengths; None where it is absent.

    Args:
        size: (height, width) of the frames in pixels.

    Raises:
        ValueError: the object is not in mask_dict.json, has another number of masks than the video has frames, or a
            mask is damaged or of another size.
    """
    entry, where = mask_dict.read_entry(masks, anno_id), f'{masks.file}: key "{anno_id}", video {video.name}'
    if len(entry) != len(video.frames):
        raise ValueError(
            f'{where}: has {len(entry)} masks for {len(video.frames)} frames. Take masks and sentences of one edition.'
        )
    found: list[Rle | None] = []
    for frame, mask in zip(video.frames, entry):
        if mask is not None:
            if not isinstance(mask, dict):
                raise ValueError(
                    f'{where}, frame {frame}: a mask must be run lengths or null, is {reprlib.repr(mask)}. Copy the '
                    'file again from its source.'
                )
            segmentations.check_segmentation(mask, *size, f'{where}, frame {frame}')
            mask = segmentations.compressed(mask, *size)
        found.append(mask if mask is not None and coco_mask.area(mask) else None)
    if not any(found):
        common.warn('%s: is in no frame.', where)
    return found


def separate(objects: Mapping[int, Sequence[Rle | None]]) -> list[list[int]]:
    """Puts objects into as few layers as easily found, such that those of one layer overlap in no frame.

    Args:
        objects: masks per frame, by object id.
    """
    layers: list[list[int]] = []
    covered: list[list[Rle | None]] = []  # the union of a layer's objects in each frame
    for number, masks in objects.items():
        for layer, union in zip(layers, covered):
            if len(layer) < metadata.VOID - 1 and not any(map(_overlap, masks, union)):
                break
        else:
            layer, union = [], [None] * len(masks)
            layers.append(layer)
            covered.append(union)
        layer.append(number)
        union[:] = [
            coco_mask.merge([mask, below]) if mask and below else mask or below for mask, below in zip(masks, union)
        ]
    return layers


def _overlap(mask: Rle | None, other: Rle | None) -> bool:
    return bool(mask and other and coco_mask.area(coco_mask.merge([mask, other], intersect=True)))


def _draw(
    layers: list[list[int]], objects: Mapping[int, Sequence[Rle | None]], size: tuple[int, int], file: pathlib.Path
) -> list[bytes]:
    """The maps of all layers as PNGs, those of the first layer in all frames first."""
    found: list[bytes] = []
    total = 0
    for layer in layers:
        for frame in range(len(objects[layer[0]])):
            index: UInt8[np.ndarray, 'H W'] = np.zeros(size, np.uint8)
            for value, number in enumerate(layer, 1):
                mask = objects[number][frame]
                if mask is not None:
                    index[coco_mask.decode(mask) > 0] = value
            found.append(common.encode_png(index))
            total = common.add_bytes(total, found[-1], file)
    return found


def _read_video(name: str, content: Any, file: pathlib.Path, hidden: bool) -> Video:
    where = f'{file}: video {name}'
    frames, expressions = common.video_fields(file, name, content)
    return Video(
        name,
        tuple(frames),
        tuple(_read_expression(key, value, f'{where}, expression {key}', hidden) for key, value in expressions.items()),
    )


def _read_expression(key: str, content: Any, where: str, hidden: bool) -> Expression:
    files.check_name(key, f'{where}: the id of an expression')
    text = metadata.check_sentence(common.field(content, 'exp', str, where), f'{where}: field "exp"')
    if hidden:
        return Expression(key, text, None)
    objects = _numbers(content, 'obj_id', where)
    anno_ids = _numbers(content, 'anno_id', where) if objects or 'anno_id' in content else []
    if len(anno_ids) != len(objects):
        raise ValueError(
            f'{where}: field "anno_id" has {len(anno_ids)} numbers, "obj_id" {len(objects)}; each object needs one of '
            'both. Copy the file again from the archive.'
        )
    return Expression(key, text, tuple(dict.fromkeys(anno_ids)))


def _numbers(content: Any, name: str, where: str) -> list[int]:
    numbers = common.field(content, name, list, where)
    if not all(type(number) is int and 0 <= number < 2**31 for number in numbers):
        raise ValueError(
            f'{where}: field "{name}" must be a list of whole numbers, is {reprlib.repr(numbers)}. Correct it.'
        )
    return numbers
