"""Reads Ref-DAVIS17 as downloaded or converted, into the splits and videos of Ref-YouTube-VOS.

DAVIS/JPEGImages/480p/<video>/<frame>.jpg
DAVIS/Annotations_unsupervised/480p/<video>/<frame>.png      palette indices, 255 is void
DAVIS/ImageSets/2017/{train,val}.txt                         one video per line, or one path of a frame
davis_text_annotations/Davis17_annot{1,2}{,_full_video}.txt  <video> <object> "<sentence>"
"""

import dataclasses
import functools
import pathlib

from absl import logging

from sgmg_jax import files
from sgmg_jax.data.metadata import VOID, Expression, check_sentence, parse_object_id
from sgmg_jax.raw import common, youtube

TEXTS = 'davis_text_annotations'
# File and encoding, in the order of an object's four expressions.
TEXT_FILES = {
    'Davis17_annot1.txt': 'utf-8',
    'Davis17_annot1_full_video.txt': 'utf-8',
    'Davis17_annot2.txt': 'latin-1',
    'Davis17_annot2_full_video.txt': 'latin-1',
}
MISSPELT = {'clasic-car': 'classic-car', 'dog-scale': 'dogs-scale', 'motor-bike': 'motorbike'}
SPLITS = {'train': 'train.txt', 'valid': 'val.txt'}
# Some converted copies keep DAVIS's folder level of the resolution. It is tried first: beside it, `Annotations/` may
# hold a single PNG, kept for its palette.
FRAME_FOLDERS = ('{split}/JPEGImages/480p', '{split}/JPEGImages', 'DAVIS/JPEGImages/480p')
MASK_FOLDERS = (
    '{split}/Annotations_unsupervised/480p',
    '{split}/Annotations/480p',
    '{split}/Annotations',
    'DAVIS/Annotations_unsupervised/480p',
)


def splits(root: pathlib.Path) -> common.Splits:
    """The videos of each split, and the function that reads one; of the converted layout if it exists.

    Raises:
        OSError, ValueError: like `youtube.splits` and `read_splits`.
    """
    if not any(common.there(root / 'meta_expressions' / split / 'meta_expressions.json') for split in youtube.SPLITS):
        return {split.name: (videos, functools.partial(read_record, split)) for split, videos in read_splits(root)}
    if (root / TEXTS).is_dir():
        logging.info('%s: holds %s too; the converted sentences of meta_expressions are used.', root, TEXTS)
    return youtube.splits(root, FRAME_FOLDERS, MASK_FOLDERS, hidden_test=False)


def read_record(split: youtube.Split, video: youtube.Video) -> common.Parts:
    """Reads a video of the downloads with all frames in its folders. Raises like `youtube.read_record`."""
    return youtube.read_record(split, dataclasses.replace(video, frames=frame_names(split, video)))


def read_splits(root: pathlib.Path) -> list[tuple[youtube.Split, list[youtube.Video]]]:
    """The splits that have a list of videos, each with its videos, sorted by name and without their frames.

    As in the released conversion, the four sentences of the n-th object (ids sorted as strings) are the expressions
    4n to 4n + 3: annotator 1 first frame, 1 full video, 2 first frame, 2 full video.

    Raises:
        FileNotFoundError: the frames, a file of sentences or all lists of videos are missing.
        ValueError: a line cannot be parsed, a file has a video's object twice, or a listed video has no sentences.
    """
    frames, masks = (root / 'DAVIS' / kind / '480p' for kind in ('JPEGImages', 'Annotations_unsupervised'))
    lists = {
        split: [
            file
            for folder in ('2017', '2017/class')
            if common.there(file := root / 'DAVIS' / 'ImageSets' / folder / name)
        ]
        for split, name in SPLITS.items()
    }
    needed = [frames, masks, *(root / TEXTS / name for name in TEXT_FILES)]
    absent = [str(path) for path in needed if not common.there(path)]
    if not any(lists.values()):
        absent.append(f'{root / "DAVIS/ImageSets/2017"}/{" or ".join(SPLITS.values())}')
    if absent:
        raise FileNotFoundError(
            f'{root}: holds neither the converted data set (meta_expressions/) nor all of the downloads; these do '
            f'not exist: {", ".join(absent)}. Unpack the archives there, or correct --raw.'
        )
    texts = [_read_texts(root / TEXTS / name, encoding, root) for name, encoding in TEXT_FILES.items()]
    found = []
    for name, candidates in lists.items():
        if not candidates:
            common.warn(
                'Split %r is not built: %s does not exist.', name, root / 'DAVIS' / 'ImageSets' / '2017' / SPLITS[name]
            )
            continue
        split = youtube.Split(name, root, root / TEXTS, (frames,), (masks,), challenge=False)
        names = read_list(candidates[0], root)
        found.append((split, [youtube.Video(video, (), _expressions(video, texts, candidates[0])) for video in names]))
    return found


def read_list(file: pathlib.Path, root: pathlib.Path | None = None) -> list[str]:
    """Names of videos; old releases have one line per frame, "/JPEGImages/480p/<video>/<frame>.jpg <mask>".

    Raises OSError, and ValueError if the file has no name or one that is not a valid folder name.
    """
    paths = [
        pathlib.PurePosixPath(line.split()[0]) for line in files.read_text(file, below=root).split('\n') if line.strip()
    ]
    names = sorted({path.parent.name if len(path.parts) > 1 else path.name for path in paths})
    if not names:
        raise ValueError(f'{file}: must hold one video name per line. Copy it again from the archive.')
    return [files.check_name(name, f'{file}: the name of a video') for name in names]


def _read_texts(file: pathlib.Path, encoding: str, root: pathlib.Path) -> dict[str, dict[str, str]]:
    """Sentences of a file by video and object id."""
    texts: dict[str, dict[str, str]] = {}
    for number, line in enumerate(files.read_text(file, encoding, below=root).split('\n'), 1):
        words = line.split()
        if not words:
            continue
        quoted = ' '.join(words[2:])
        object_id = parse_object_id(words[1]) if len(words) > 2 else None
        if len(quoted) < 2 or object_id is None:
            raise ValueError(
                f'{file}: line {number} is {line!a:.80}; it must be <video> <object> "<sentence>", '
                f'the object a whole number from 1 to {VOID - 1}. Correct the line.'
            )
        if quoted[0] + quoted[-1] != '""':
            # The released conversion would cut off its first and last letter.
            common.warn('%s: the sentence of line %d lacks its quotes: %s', file, number, line)
        text = check_sentence(quoted.removeprefix('"').removesuffix('"'), f'{file}: line {number}')
        sentences = texts.setdefault(MISSPELT.get(words[0], words[0]), {})
        if str(object_id) in sentences:
            raise ValueError(
                f'{file}: line {number} is the second for video {files.printable(words[0])}, object '
                f'{object_id}. Remove one of them.'
            )
        sentences[str(object_id)] = text
    if not texts:
        raise ValueError(f'{file}: holds no sentence. Copy it again from the archive.')
    return texts


def _expressions(video: str, texts: list[dict[str, dict[str, str]]], listing: pathlib.Path) -> tuple[Expression, ...]:
    objects = [set(sentences.get(video, ())) for sentences in texts]
    complete = sorted(set.intersection(*objects))
    if not complete:
        raise ValueError(
            f'{listing}: video {video} has no object with a sentence in each of {", ".join(TEXT_FILES)}. '
            'Take list and sentences of the same release.'
        )
    rest = set.union(*objects) - set(complete)
    if rest:
        common.warn('Video %s: left out the objects %s, which have fewer than four sentences.', video, sorted(rest))
    return tuple(
        Expression(str(len(texts) * position + number), sentences[video][key], int(key), ())
        for position, key in enumerate(complete)
        for number, sentences in enumerate(texts)
    )


def frame_names(split: youtube.Split, video: youtube.Video) -> tuple[str, ...]:
    """The names of all frames and masks: if one lacks the other, checking the files says so."""
    folders = (
        (folder / video.name, endings)
        for kinds, endings in ((split.frame_folders, youtube.FRAME_ENDINGS), (split.mask_folders, ('.png',)))
        for folder in kinds
    )
    found = {stem for folder, endings in folders if folder.is_dir() for stem in files.by_stem(folder, *endings)}
    return tuple(files.check_name(name, f'{split.frame_folders[0] / video.name}: a frame') for name in sorted(found))
