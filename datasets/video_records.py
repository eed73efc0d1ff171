"""The builder of records that all data sets share; sgmg_jax/data/records.py reads them.

The list of videos and sentences is also written to metadata.json beside the records, in the same order, so that a
reader can index sentences without reading frames.
"""

import abc
from collections.abc import Callable, Iterator, Sequence
import contextlib
import errno
import io
import os
import pathlib
from typing import Any

from absl import logging
from array_record.python import array_record_module
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_builder, example_serializer
import tqdm

from sgmg_jax import commands
from sgmg_jax.data import metadata
from sgmg_jax.raw import common

SHARD_BYTES = 2**30  # after which the next file begins, if --shards is not given


def frames(encoding: str) -> dict:
    """The tfds feature of frames stored in this encoding, 'jpeg' or 'png'."""
    return {'frames': tfds.features.Sequence(tfds.features.Image(shape=(None, None, 3), encoding_format=encoding))}


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Does nothing: the bucket of tfds has none of our data sets, and each query leaves a folder in /tmp."""


class VideoRecords(dataset_builder.FileReaderBuilder):
    """Builds one record per video, or per picture. Subclasses define the encoding of frames, and `splits`."""

    FRAMES = frames('jpeg')
    OBJECTS: dict = {}  # further features of an expression
    ITEM = 'video'

    def __init__(self, *, skip_bad_videos: bool = False, **kwargs: Any) -> None:
        """skip_bad_videos: skip videos with a broken file, with a counted warning."""
        self._skip_bad_videos = skip_bad_videos
        super().__init__(**kwargs)

    @abc.abstractmethod
    def splits(self, root: pathlib.Path) -> common.Splits:
        """By split: its videos, and the function that reads one.

        Args:
            root: of the raw data set.

        Raises:
            OSError, ValueError: a list of videos or sentences is missing or wrong; names file and field.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        return _Info(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    'video': tfds.features.Text(),
                    'frame_names': tfds.features.Sequence(tfds.features.Text()),
                    **self.FRAMES,
                    # One map of object ids per frame, 255 is void; none where the ground truth is hidden. Or masks of 0
                    # and 1, each of one object in one frame: `mask_places` in metadata.json gives both. Or several maps
                    # per frame: `mask_layers` gives their objects.
                    'masks': tfds.features.Sequence(tfds.features.Image(shape=(None, None, 1), encoding_format='png')),
                    'expressions': tfds.features.Sequence(
                        {
                            'id': tfds.features.Text(),
                            'text': tfds.features.Text(),
                            'object_id': np.int32,  # -1 where it is hidden.
                            'tags': tfds.features.Text(),  # Words, separated by spaces.
                            **self.OBJECTS,
                        }
                    ),
                    'height': np.int32,
                    'width': np.int32,
                }
            ),
            metadata=tfds.core.MetadataDict(videos={}),
            disable_shuffling=True,  # Records keep the order of the metadata.
        )

    def _download_and_prepare(
        self, dl_manager: tfds.download.DownloadManager, download_config: tfds.download.DownloadConfig
    ) -> None:
        """Writes one record at a time: tfds's own writer holds a whole split, and needs TensorFlow above 1 GB."""
        splits, shards = self.splits(pathlib.Path(dl_manager.manual_dir)), download_config.num_shards
        if not splits:
            raise ValueError(f'{dl_manager.manual_dir}: no split has a {self.ITEM}. Unpack the archives again.')
        for split, (videos, _) in splits.items():
            if shards and shards > len(videos):
                raise ValueError(
                    f'--shards = {shards}: split {split!r} has {len(videos)} {self.ITEM}s. Give fewer, or omit it.'
                )
        self.info.set_splits(
            tfds.core.SplitDict([self._write(split, videos, read, shards) for split, (videos, read) in splits.items()])
        )

    def _write(self, split: str, videos: Sequence, read: Callable, shards: int | None) -> tfds.core.SplitInfo:
        """Writes the records of a split and lists them in the metadata."""
        template = self._get_filename_template(split_name=split)
        serializer = example_serializer.ExampleSerializer(self.info.features.get_serialized_info())
        partial = pathlib.Path(template.data_dir) / f'{split}.partial'
        sizes: list[int] = []
        counts: list[int] = []
        writers: list[array_record_module.ArrayRecordWriter] = []
        current = None
        for number, example in self._examples(split, videos, read):
            shard = number * shards // len(videos) if shards else sum(sizes) // SHARD_BYTES
            if shard != current:
                with _writing():
                    if writers:
                        writers[-1].close()
                    writers.append(array_record_module.ArrayRecordWriter(f'{partial}{len(counts)}', 'group_size:1'))
                current = shard
                sizes.append(0)
                counts.append(0)
            data = serializer.serialize_example(self.info.features.encode_example(example))
            with _writing():
                writers[-1].write(data)
            sizes[-1] += len(data)
            counts[-1] += 1
        if not counts:
            raise ValueError(
                f'every {self.ITEM} of a split was left out as bad: {split!r} has {len(videos)} of them, '
                'and the warnings above say why.'
            )
        with _writing():
            writers[-1].close()
        for number in range(len(counts)):
            os.replace(f'{partial}{number}', template.sharded_filepath(shard_index=number, num_shards=len(counts)))
        return tfds.core.SplitInfo(name=split, shard_lengths=counts, num_bytes=sum(sizes), filename_template=template)

    def _examples(self, split: str, videos: Sequence, read: Callable) -> Iterator[tuple[int, dict]]:
        """The number and the record of each good video."""
        listed: list[dict] = []
        self.info.metadata['videos'][split] = listed
        skipped = 0
        names: set[str] = set()
        for number, video in enumerate(tqdm.tqdm(videos, split, unit=self.ITEM, dynamic_ncols=True, delay=1)):
            try:
                parts = read(video)
                if not parts:
                    continue
                entry, described, content = parts
                described = entry | described
                name = metadata.read_video(described, f'{self.ITEM} {len(listed)} of {split}').name
                if name in names:
                    raise ValueError(f'split {split!r} has the {self.ITEM} {name} twice. Remove one of the two.')
            except (OSError, ValueError) as error:
                if not self._skip_bad_videos:
                    raise
                skipped += 1
                logging.warning(
                    'Skipped a bad %s of %s, number %d: %s', self.ITEM, split, skipped, commands.message(error)
                )
                continue
            names.add(name)
            listed.append(described)
            pictures = {field: list(map(io.BytesIO, data)) for field, data in content.items() if field != 'film'}
            yield number, entry | content | pictures


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Turns array_record's error on a failed write into an OSError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(errno.EIO, str(error).splitlines()[0]) from error
