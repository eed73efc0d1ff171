"""Reads the records of videos that `datasets/` builds, without TensorFlow.

A record is one video (or one picture): its frames, masks and sentences. Frames are decoded on demand: sampling five
frames of a long video decodes five.

Axis letters: T frames, H W pixels.
"""

from collections.abc import Sequence
import os
import pathlib
import re
from typing import Any, NamedTuple, SupportsIndex

from array_record.python import array_record_data_source, array_record_module
from google.protobuf import message
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from sgmg_jax import files
from sgmg_jax.data.decoding import Record
from sgmg_jax.data.metadata import Video, read_video

_LARGEST_METADATA = 2**26  # bytes; RefCOCO's has a fifth of it


class _Piece(NamedTuple):
    """Consecutive records of a file, in array_record's terms."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class _Source(Sequence):
    """The records of pieces of files: the fields of a `Record`, as bytes."""

    def __init__(self, pieces: Sequence[_Piece]):
        self._files = [piece.filename for piece in pieces for _ in range(piece.take)]
        self._records = array_record_data_source.ArrayRecordDataSource(pieces)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]  # no slices
        try:
            data = self._records[index]
            if not data:  # A file of zeros has such records.
                raise ValueError('a record is empty')
            fields = tf_example_pb2.Example.FromString(data).features.feature
        # What array_record and protobuf raise for damage.
        except (RuntimeError, OSError, ValueError, message.DecodeError) as error:
            raise ValueError(f'{self._files[index]}: is damaged: {str(error).splitlines()[0]}') from error
        example = {name: list(fields[name].bytes_list.value) for name in ('frames', 'masks', 'film') if name in fields}
        return example | {'video': b''.join(fields['video'].bytes_list.value)}


class Records(Sequence):
    """Random access to the videos of a split: `videos` is in memory, `records[i]` reads one video.

    Can be pickled and read from several threads.
    """

    def __init__(self, directory: str, split: str, videos: tuple[Video, ...], sources: tuple):
        """sources: sequences like `_Source`, one after the other, that hold the records of the videos."""
        self.directory, self.split, self.videos = directory, split, videos
        self._sources = sources

    def __len__(self) -> int:
        return len(self.videos)

    def first(self, count: int) -> 'Records':
        """Only the first `count` videos."""
        return Records(self.directory, self.split, self.videos[:count], self._sources)

    def __getitem__(self, index: SupportsIndex) -> Record:  # type: ignore[override]  # no slices
        place = range(len(self))[index]
        video = self.videos[place]
        for source in self._sources:
            if place < len(source):
                break
            place -= len(source)
        try:
            example = source[place]
            self._check(video, example)
        except ValueError as error:
            raise ValueError(
                f'{self.directory}: split {self.split}, video {video.name}: its record cannot be read '
                f'({error}). Check the disk; build the data set again.'
            ) from error
        film = example.get('film')
        return Record(
            video,
            tuple(example.get('frames', ())),
            tuple(example.get('masks', ())),
            None if film is None else bytes(film[0]),
        )

    @staticmethod
    def _check(video: Video, example: dict) -> None:
        if example['video'] != video.name.encode():
            raise ValueError(
                f'it is of video {example["video"].decode(errors="replace")!r:.200}, but metadata.json '
                f'says {video.name}'
            )
        wanted = {'masks': video.num_masks} | ({'film': 1} if 'film' in example else {'frames': len(video.frame_names)})
        for field, count in wanted.items():
            if len(example.get(field, ())) != count:
                raise ValueError(f'it has {len(example.get(field, ()))} {field}, metadata.json says {count}')


def open_records(directories: str | os.PathLike | Sequence[str | os.PathLike], split: str) -> Records:
    """Opens a split of a built data set, or concatenates those of several.

    Args:
        directories: a folder of records (<out>/<name>/<version>), or one above it that holds no others; or several.
        split: 'train', 'valid', 'test', or a slice such as 'valid[:4]' or 'train[10%:]', applied to each.

    Raises:
        FileNotFoundError: there are no records under a directory, or no metadata beside them.
        ValueError: there are several data sets under a directory, or no such split; lists what is there.
    """
    if isinstance(directories, str | os.PathLike):
        directories = [directories]
    videos, sources, folders = [], [], []
    for directory in directories:
        folder = _records_folder(pathlib.Path(directory))
        of_folder, source = _open_split(folder, split)
        videos += of_folder
        sources.append(source)
        folders.append(str(folder))
    return Records(', '.join(folders), split, tuple(videos), tuple(sources))


def describe(directory: str | os.PathLike) -> tuple[str, dict[str, int]]:
    """The name of a built data set, and the number of videos per split. Raises like `open_records`."""
    name, lengths = _read_info(_records_folder(pathlib.Path(directory)))
    return name, {split: sum(of_split) for split, of_split in lengths.items()}


def _open_split(folder: pathlib.Path, split: str) -> tuple[list[Video], Sequence]:
    name, lengths = _read_info(folder)
    listed = _read_metadata(folder)
    known = tfds.core.SplitDict(
        [tfds.core.SplitInfo(name=each, shard_lengths=numbers, num_bytes=0) for each, numbers in lengths.items()]
    )
    try:
        parts = [
            (part.splitname, range(sum(lengths[part.splitname]))[part.from_ : part.to])
            for part in tfds.core.ReadInstruction.from_spec(split).to_absolute(known)
        ]
        if not all(numbers for _, numbers in parts):
            raise ValueError('an empty slice')
    except (ValueError, KeyError, AssertionError, NotImplementedError) as error:
        sizes = ', '.join(f'{each} ({sum(numbers)} videos)' for each, numbers in lengths.items())
        first = next(iter(lengths))
        raise ValueError(
            f'{folder}: no split {split!r} there; it has {sizes}. Name one of these or a slice '
            f'of it, such as {first!r} or {first + "[:4]"!r}.'
        ) from error
    videos, pieces = [], []
    for part, numbers in parts:
        entries, count = listed.get(part), sum(lengths[part])
        if not isinstance(entries, list) or len(entries) != count:
            raise ValueError(
                f'{folder}: split {part!r} has {count} records, metadata.json lists '
                f'{len(entries) if isinstance(entries, list) else 0} videos. Build the data set again.'
            )
        where = f'{folder / "metadata.json"}: split {part}'
        try:
            of_part = [read_video(entries[number], f'{where}, number {number}') for number in numbers]
        except ValueError as error:
            raise ValueError(f'{error} Build the data set again.') from error
        if len({each.name for each in of_part}) < len(of_part):
            raise ValueError(f'{where} has a video twice. Build the data set again.')
        videos += of_part
        pieces += _pieces(folder, name, part, lengths[part], numbers)
    return videos, _Source(pieces)


def _pieces(folder: pathlib.Path, name: str, split: str, lengths: list[int], numbers: range) -> list[_Piece]:
    """The parts of a split's files that hold these records. Checks all files of the split."""
    files.check_text(folder)
    pieces, begin = [], 0
    for number, length in enumerate(lengths):
        file = folder / f'{name}-{split}.array_record-{number:05d}-of-{len(lengths):05d}'
        try:
            files.check_regular(file)
            reader = array_record_module.ArrayRecordReader(os.fspath(file))
            count = reader.num_records()
            reader.close()
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'{file}: missing, though dataset_info.json counts it. Build the data set again.'
            ) from error
        except RuntimeError:
            count = length  # Reading a damaged record raises.
        if count != length:
            raise ValueError(f'{file}: has {count} records, dataset_info.json says {length}. Build the data set again.')
        skip, stop = max(0, numbers.start - begin), min(length, numbers.stop - begin)
        if skip < stop:
            pieces.append(_Piece(os.fspath(file), skip, stop - skip, length))
        begin += length
    return pieces


def _read_info(folder: pathlib.Path) -> tuple[str, dict[str, list[int]]]:
    """The name of a data set, and the number of records in each file of each split."""
    file = folder / 'dataset_info.json'
    info, wrong = files.read_json(file, _LARGEST_METADATA), []
    if not isinstance(info, dict):
        info = {}
    name, listed = info.get('name'), info.get('splits')
    lengths = {}
    for entry in listed if isinstance(listed, list) else ():
        entry = entry if isinstance(entry, dict) else {}
        split, numbers = entry.get('name'), entry.get('shardLengths')
        if not (isinstance(split, str) and re.fullmatch(r'\w{1,100}', split) and split not in lengths):
            wrong.append('splits.name')
        elif entry.get('filepathTemplate') != '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}':
            wrong.append('splits.filepathTemplate')
        # Protobuf's JSON writes 64-bit integers as strings.
        elif not (
            isinstance(numbers, list)
            and numbers
            and all(isinstance(number, str) and re.fullmatch('[0-9]{1,9}', number) for number in numbers)
        ):
            wrong.append('splits.shardLengths')
        else:
            lengths[split] = list(map(int, numbers))
    if not isinstance(name, str) or not re.fullmatch(r'\w{1,100}', name):
        wrong.append('name')
        name = ''
    if info.get('fileFormat') != 'array_record':
        wrong.append('fileFormat')
    if wrong or not lengths:
        raise ValueError(
            f'{file}: field {(wrong or ["splits"])[0]!r} is missing or wrong. Build the data set again '
            'with `python -m datasets.build`.'
        )
    return name, lengths


def _read_metadata(folder: pathlib.Path) -> dict:
    """The videos listed in metadata.json, by split; checks that this repository's builders wrote the records."""
    if not (folder / 'metadata.json').exists():
        raise FileNotFoundError(
            f'{folder}: holds no metadata.json, so another builder wrote it. '
            'Build the data set with `python -m datasets.build`.'
        )
    features = files.read_json(folder / 'features.json', _LARGEST_METADATA)
    for key in ('featuresDict', 'features'):
        features = features.get(key) if isinstance(features, dict) else None
    if (
        not isinstance(features, dict)
        or not {'video', 'masks', 'expressions'} <= features.keys()
        or (not {'frames', 'film'} & features.keys())
    ):
        raise ValueError(
            f'{folder / "features.json"}: does not have the features of a video, so another builder '
            'wrote the records. Build the data set again with `python -m datasets.build`.'
        )
    metadata = files.read_json(folder / 'metadata.json', _LARGEST_METADATA)
    listed = metadata.get('videos') if isinstance(metadata, dict) else None
    if not isinstance(listed, dict):
        raise ValueError(f'{folder / "metadata.json"}: field "videos" is missing or wrong. Build the data set again.')
    return listed


def _records_folder(directory: pathlib.Path) -> pathlib.Path:
    if not directory.is_dir():
        raise FileNotFoundError(
            f'{directory}: no such folder. Build records with `python -m datasets.build`, or correct the path.'
        )
    found = [
        path.parent
        for level in ('', '*/', '*/*/', '*/*/*/')
        for path in sorted(directory.glob(level + 'dataset_info.json'))
        if not path.parent.name.startswith('incomplete.')
    ]  # An interrupted build.
    if not found:
        there = files.printable(', '.join(sorted(path.name for path in directory.iterdir()))) or 'nothing'
        raise FileNotFoundError(
            f'{directory}: holds no built data set (no dataset_info.json); it has '
            f'{there}. Build one with `python -m datasets.build`.'
        )
    if len(found) > 1:
        raise ValueError(f'{directory}: holds several data sets, name one of them: {", ".join(map(str, found))}.')
    return found[0]
