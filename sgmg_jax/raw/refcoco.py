"""Reads the raw RefCOCO, RefCOCO+ and RefCOCOg.

    train2014/COCO_train2014_<number>.jpg     or images/train2014/
    refcoco/refs(unc).p                       the release: a pickle of Python 2 with the sentences, and
    refcoco/instances.json                    COCO's pictures and objects; or instead of both
    refcoco/instances_refcoco_<split>.json    as converted for MDETR or ReferFormer: a picture and an object
                                              per sentence

Both give the same records.
"""

import dataclasses
import functools
import pathlib
import reprlib
from typing import Any, NamedTuple

from absl import logging
from jaxtyping import UInt8
import numpy as np

from sgmg_jax import files, plain_pickle
from sgmg_jax.data import decoding, metadata
from sgmg_jax.evaluation import segmentations
from sgmg_jax.raw import common

# Sentences per split as reported by others; only the log compares them.
REPORTED = {
    'refcoco': {'train': 120624, 'val': 10834, 'testA': 5657, 'testB': 5095},
    'refcoco+': {'train': 120191, 'val': 10758, 'testA': 5726, 'testB': 4889},
    'refcocog': {'train': 80512, 'val': 4896, 'test': 9602},
}
REFS = {'refcoco': 'refs(unc).p', 'refcoco+': 'refs(unc).p', 'refcocog': 'refs(umd).p'}
LARGEST_JSON = 2**28  # bytes; the largest, a converted split of RefCOCO, has a third of it
MOST_SENTENCES = 2**20  # per split; a small pickle can hold any number, because its lists may share parts


@dataclasses.dataclass(frozen=True)
class Sentence:
    """id: its number in the split, from 1. object_id: k for the k-th of the picture's objects.
    crowd: whether the object is a group that COCO does not separate (iscrowd)."""

    id: str
    text: str
    object_id: int
    crowd: bool


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture, its sentences in one split and the objects that they refer to, in order of first mention.

    segmentations: COCO's, per object: polygons [x0 y0 x1 y1 ...] in pixels, or a run-length encoding.
    """

    file_name: str
    height: int
    width: int
    sentences: tuple[Sentence, ...]
    segmentations: tuple[list | dict, ...]
    where: str

    @property
    def name(self) -> str:
        return pathlib.PurePath(self.file_name).stem


def splits(root: pathlib.Path, name: str) -> common.Splits:
    """The pictures of each split, and the function that reads one.

    Args:
        root: holds the folders of the three data sets and of the pictures.
        name: 'refcoco', 'refcoco+' or 'refcocog'.

    Raises:
        OSError, ValueError: like `find_pictures` and `read_splits`.
    """
    found = find_pictures(root)
    pictures = read_splits(root, name, REFS[name], tuple(REPORTED[name]))
    for split, of_split in pictures.items():
        logging.info(
            '%s %s: %d pictures, %d sentences (reported: %d).',
            name,
            split,
            len(of_split),
            sum(len(picture.sentences) for picture in of_split),
            REPORTED[name][split],
        )
    return {split: (of_split, functools.partial(read_record, root, found)) for split, of_split in pictures.items()}


def read_record(root: pathlib.Path, found: tuple[pathlib.Path, dict[str, list[str]]], picture: Picture) -> common.Parts:
    """Reads a picture as a video of one frame; `found` is the result of `find_pictures`.

    Raises:
        FileNotFoundError, ValueError: its file is missing, broken or of another size, or a segmentation is wrong.
    """
    data = read_jpeg(found, picture, root)
    places = [[0, number] for number in range(1, len(picture.segmentations) + 1)]
    masks = [common.encode_png(render(picture, number)) for _, number in places]
    entry = {
        'video': picture.name,
        'frame_names': ['0'],
        'height': picture.height,
        'width': picture.width,
        'expressions': [
            {
                'id': sentence.id,
                'text': sentence.text,
                'object_id': sentence.object_id,
                'tags': 'crowd' * sentence.crowd,
            }
            for sentence in picture.sentences
        ],
    }
    return entry, {'has_masks': True, 'mask_places': places}, {'frames': [data], 'masks': masks}


def read_jpeg(found: tuple[pathlib.Path, dict[str, list[str]]], picture: Picture, root: pathlib.Path) -> bytes:
    """The JPEG of a picture; `found` is the result of `find_pictures`.

    Raises:
        FileNotFoundError, ValueError: it is missing, broken or of another size.
    """
    folder, there = found
    names = there.get(picture.name, [picture.file_name])
    if len(names) > 1:
        raise ValueError(f'{folder}: {" and ".join(names)} are the same picture. Remove all but one.')
    file = folder / names[0]
    (data,), height, width = common.read_frames(
        [file], root, 'JPEG', decoding.check_jpeg, f', though {picture.where} needs it'
    )
    if (height, width) != (picture.height, picture.width):
        raise ValueError(
            f'{file}: is {width}x{height} pixels, but "width" and "height" of {picture.where} are '
            f'{picture.width} and {picture.height}. Take both of the same release, unscaled.'
        )
    return data


def read_splits(root: pathlib.Path, name: str, refs_name: str, splits: tuple[str, ...]) -> dict[str, list[Picture]]:
    """The pictures of each existing split, in the order of their first sentence.

    Args:
        root: holds the folders of the three data sets.
        name: 'refcoco', 'refcoco+' or 'refcocog'.
        refs_name: the file of sentences; its name tells who made the splits.
        splits: names of the splits.

    Raises:
        FileNotFoundError: there is neither the release nor a converted split.
        ValueError: a file is too large, damaged or hostile, or a field is missing or wrong.
    """
    refs, instances = root / name / refs_name, root / name / 'instances.json'
    converted = {split: root / name / f'instances_{name}_{split}.json' for split in splits}
    absent = [str(file) for file in (refs, instances) if not common.there(file)]
    if not absent:
        pictures = _read_release(refs, instances, splits, root)
    elif any(common.there(file) for file in converted.values()):
        logging.info('%s: reading the converted files, because %s is missing.', root / name, ' and '.join(absent))
        pictures = {split: _read_converted(file, root) for split, file in converted.items() if common.there(file)}
    else:
        raise FileNotFoundError(
            f'{root}: no sentences of {name} are there. They are in {refs} and {instances}, or in the converted '
            f'{", ".join(map(str, converted.values()))}. Unpack the archive there, or correct --raw.'
        )
    for split in splits:
        if split not in pictures:
            common.warn('Split %r is not built: %s has no sentences of it.', split, root / name)
    return pictures


def find_pictures(root: pathlib.Path) -> tuple[pathlib.Path, dict[str, list[str]]]:
    """The folder of COCO's training pictures of 2014, and its JPEGs by name without ending.

    Raises FileNotFoundError.
    """
    folders = root / 'train2014', root / 'images' / 'train2014'
    for folder in folders:
        if folder.is_dir():
            return folder, files.by_stem(folder, '.jpg', '.jpeg')
    raise FileNotFoundError(
        f'{" or ".join(map(str, folders))}: missing folder with the pictures. Unpack train2014.zip '
        'of COCO there, or correct --raw.'
    )


def render(picture: Picture, object_id: int) -> UInt8[np.ndarray, 'H W']:
    """The mask of an object (0 and 1): the union of its polygons, drawn as pycocotools does.

    Raises:
        ValueError: the polygons or runs do not fit the picture.
    """
    mask = segmentations.draw(picture.segmentations[object_id - 1], picture.height, picture.width, picture.where)
    if not mask.any():
        common.warn('%s: object %d covers no pixel.', picture.where, object_id)
    return mask


class _Row(NamedTuple):
    """A sentence with COCO's entries of its picture and object."""

    number: int
    text: str
    image_id: int
    image: dict
    object_id: int
    annotation: dict


def _read_release(
    refs_file: pathlib.Path, instances: pathlib.Path, splits: tuple[str, ...], root: pathlib.Path
) -> dict[str, list[Picture]]:
    refs, content = plain_pickle.read(refs_file, root), files.read_json(instances, LARGEST_JSON, root)
    if not isinstance(refs, list):
        raise ValueError(f'{refs_file}: holds a {type(refs).__name__}, not a list. Unpack it again from the archive.')
    images = _by_key(content, 'images', 'id', instances)
    annotations = _by_key(content, 'annotations', 'id', instances)
    rows: dict[str, list[_Row]] = {}
    for position, ref in enumerate(refs):
        where = f'{refs_file}: entry {position}'
        of_ref = [split for split in splits if _matches(split, _field(ref, 'split', str, where))]
        image_id, object_id = _field(ref, 'image_id', int, where), _field(ref, 'ann_id', int, where)
        for split in of_ref:
            if image_id not in images or annotations.get(object_id, {}).get('image_id') != image_id:
                raise ValueError(
                    f'{where}: {instances} has no image_id {image_id} with the ann_id {object_id}. Take '
                    'files of the same release.'
                )
            of_split = rows.setdefault(split, [])
            sentences = _field(ref, 'sentences', list, where)
            if len(of_split) + len(sentences) > MOST_SENTENCES:
                raise ValueError(
                    f'{where}: the split {split!r} has more than {MOST_SENTENCES:,} sentences. Unpack '
                    f'{refs_file.name} again from the archive.'
                )
            for sentence in sentences:
                of_split.append(
                    _Row(
                        len(of_split) + 1,
                        _field(sentence, 'sent', str, where),
                        image_id,
                        images[image_id],
                        object_id,
                        annotations[object_id],
                    )
                )
    if not rows:
        raise ValueError(
            f'{refs_file}: none of its {len(refs)} entries has a "split" of {", ".join(splits)}. Unpack '
            'it again from the archive.'
        )
    return {split: _pictures(rows[split], instances, split) for split in splits if split in rows}


def _matches(split: str, of_ref: str) -> bool:
    """The rule of the release's refer.py: 'testAB' is in both 'testA' and 'testB'."""
    if split in ('testA', 'testB'):
        return split[-1] in of_ref
    return split in of_ref if split == 'test' else split == of_ref


def _read_converted(file: pathlib.Path, root: pathlib.Path) -> list[Picture]:
    content = files.read_json(file, LARGEST_JSON, root)
    annotations = _by_key(content, 'annotations', 'image_id', file)
    rows = []
    for number, image in _by_key(content, 'images', 'id', file).items():
        where = f'{file}: image {number}'
        if number not in annotations:
            raise ValueError(f'{where}: no annotation has this image_id. Convert the data set again.')
        rows.append(
            _Row(
                number,
                _field(image, 'caption', str, where),
                _field(image, 'original_id', int, where),
                image,
                _field(annotations[number], 'original_id', int, f'{where}, its annotation'),
                annotations[number],
            )
        )
    return _pictures(rows, file, file.stem)


def _pictures(rows: list[_Row], file: pathlib.Path, split: str) -> list[Picture]:
    """Groups sentences by picture. Blank ones are ignored; the others keep their numbers."""
    grouped: dict[int, list[_Row]] = {}
    blank: list[int] = []
    for row in rows:
        if row.text.strip():
            metadata.check_sentence(row.text, f'{file}: image {row.image_id}: sentence {row.number}')
            grouped.setdefault(row.image_id, []).append(row)
        else:
            blank.append(row.number)
    if blank:
        common.warn('%s: left out %d empty sentences of %s, numbers %s.', file, len(blank), split, reprlib.repr(blank))
    if not grouped:
        raise ValueError(f'{file}: has no sentence of the split {split!r}. Copy the file again from the archive.')
    return [_picture(of_image, file) for of_image in grouped.values()]


def _picture(rows: list[_Row], file: pathlib.Path) -> Picture:
    image, where = rows[0].image, f'{file}: image {rows[0].image_id}'
    file_name = files.check_name(_field(image, 'file_name', str, where), f'{where}: field "file_name"')
    height, width = _field(image, 'height', int, where), _field(image, 'width', int, where)
    segmentations.check_size(height, width, where)
    objects: list[list | dict] = []
    numbers: dict[int, int] = {}
    sentences: list[Sentence] = []
    for row in rows:
        annotated = f'{where}, object {row.object_id}'
        if row.object_id not in numbers:
            numbers[row.object_id] = len(numbers) + 1
            objects.append(_field(row.annotation, 'segmentation', (list, dict), annotated))
        sentences.append(
            Sentence(
                str(row.number),
                row.text,
                numbers[row.object_id],
                bool(_field(row.annotation, 'iscrowd', int, annotated)),
            )
        )
    return Picture(file_name, height, width, tuple(sentences), tuple(objects), where)


def _by_key(content: object, name: str, key: str, file: pathlib.Path) -> dict[int, dict]:
    entries = _field(content, name, list, f'{file}')
    found = {_field(entry, key, int, f'{file}: {name} {position}'): entry for position, entry in enumerate(entries)}
    if not entries or len(found) < len(entries):
        raise ValueError(
            f'{file}: field "{name}" is empty or has a "{key}" twice. Copy the file again from the archive.'
        )
    return found


def _field(content: object, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    value = content.get(name) if isinstance(content, dict) else None
    if type(value) not in (kind if isinstance(kind, tuple) else (kind,)):
        # Printed in full, lists that share parts could take forever.
        raise ValueError(
            f'{where}: field "{name}" is missing or of the wrong type, is {reprlib.repr(value)}. Copy the '
            'file again from the archive.'
        )
    return value
