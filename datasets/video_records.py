"""What the records of all data sets share; sgmg_jax/data/records.py reads them.

The list of videos and sentences is also written to metadata.json beside the records, in their
order, so that a reader can index sentences without reading frames.
"""
from collections.abc import Callable, Iterator, Sequence
import contextlib
import errno
import io
import os
import pathlib

from absl import logging
from array_record.python import array_record_module
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_builder, example_serializer
import tqdm

from sgmg_jax import commands
from sgmg_jax.data import metadata
from sgmg_jax.raw import common

SHARD_BYTES = 2 ** 30  # after which another file is begun, if their number is not given


def frames(encoding: str) -> dict:
    """The feature of frames that are kept as files of this encoding, 'jpeg' or 'png'."""
    return {'frames': tfds.features.Sequence(tfds.features.Image(shape=(None, None, 3), encoding_format=encoding))}


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self):
        """Asks nothing of the bucket of tfds, which has none of ours: that leaves a folder in /tmp each time."""


class VideoRecords(dataset_builder.FileReaderBuilder):
    """Builds one record a video, or a picture. Subclasses say what the frames are kept as, and give the splits."""
    FRAMES = frames('jpeg')
    ITEM = 'video'

    def __init__(self, *, skip_bad_videos: bool = False, **kwargs):
        """skip_bad_videos: leave out, with a counted warning, videos of which a file is broken."""
        self._skip_bad_videos = skip_bad_videos
        super().__init__(**kwargs)

    def splits(self, root: pathlib.Path) -> common.Splits:
        """Of each split its videos, and the function that reads one.

        Args:
            root: of the raw data set.

        Raises:
            OSError, ValueError: a list of videos or sentences is missing or wrong; names file and field.
        """
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        return _Info(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict({
                'video': tfds.features.Text(),
                'frame_names': tfds.features.Sequence(tfds.features.Text()),
                **self.FRAMES,
                # Maps of object ids, where 255 is void, one a frame; none where the ground truth is hidden. Or 0 and 1
                # of one object in one frame each, where `mask_places` in metadata.json says of which and in which.
                'masks': tfds.features.Sequence(
                    tfds.features.Image(shape=(None, None, 1), encoding_format='png')),
                'expressions': tfds.features.Sequence({
                    'id': tfds.features.Text(),
                    'text': tfds.features.Text(),
                    'object_id': np.int32,  # -1 where it is hidden.
                    'tags': tfds.features.Text(),  # Words, by spaces.
                }),
                'height': np.int32,
                'width': np.int32,
            }),
            metadata=tfds.core.MetadataDict(videos={}),
            disable_shuffling=True,  # Records keep the order of the metadata.
        )

    def _download_and_prepare(self, dl_manager, download_config):
        """Writes record after record: the writer of tfds keeps a whole split, and needs TensorFlow from 1 GB on."""
        splits, shards = self.splits(pathlib.Path(dl_manager.manual_dir)), download_config.num_shards
        if not splits:
            raise ValueError(f'{dl_manager.manual_dir}: no split has a {self.ITEM}. Unpack the archives again.')
        for split, (videos, _) in splits.items():
            if shards and shards > len(videos):
                raise ValueError(f'--shards = {shards}: split {split!r} has {len(videos)} {self.ITEM}s. Give fewer, or '
                                 'leave it out.')
        self.info.set_splits(tfds.core.SplitDict([
            self._write(split, videos, read, shards) for split, (videos, read) in splits.items()]))

    def _write(self, split: str, videos: Sequence, read: Callable, shards: int | None) -> tfds.core.SplitInfo:
        """Writes the records of a split and lists them in the metadata."""
        template = self._get_filename_template(split_name=split)
        serializer = example_serializer.ExampleSerializer(self.info.features.get_serialized_info())
        partial = pathlib.Path(template.data_dir) / f'{split}.partial'
        sizes, counts, writer, current = [], [], None, None
        for number, example in self._examples(split, videos, read):
            shard = number * shards // len(videos) if shards else sum(sizes) // SHARD_BYTES
            if shard != current:
                with _writing():
                    if writer:
                        writer.close()
                    writer = array_record_module.ArrayRecordWriter(f'{partial}{len(counts)}', 'group_size:1')
                current = shard
                sizes.append(0)
                counts.append(0)
            data = serializer.serialize_example(self.info.features.encode_example(example))
            with _writing():
                writer.write(data)
            sizes[-1] += len(data)
            counts[-1] += 1
        if not counts:
            raise ValueError(f'every {self.ITEM} of a split was left out as bad: {split!r} has {len(videos)} of them, '
                             'and the warnings above say why.')
        with _writing():
            writer.close()
        for number in range(len(counts)):
            os.replace(f'{partial}{number}', template.sharded_filepath(shard_index=number, num_shards=len(counts)))
        return tfds.core.SplitInfo(name=split, shard_lengths=counts, num_bytes=sum(sizes), filename_template=template)

    def _examples(self, split: str, videos: Sequence, read: Callable) -> Iterator[tuple[int, dict]]:
        """The number and the record of each video that is good."""
        listed = self.info.metadata['videos'][split] = []
        skipped, names = 0, set()
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
                logging.warning('Skipped a bad %s of %s, number %d: %s', self.ITEM, split, skipped,
                                commands.message(error))
                continue
            names.add(name)
            listed.append(described)
            pictures = {field: list(map(io.BytesIO, data)) for field, data in content.items() if field != 'film'}
            yield number, entry | content | pictures


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """What array_record raises when it cannot write, as an OSError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(errno.EIO, str(error).splitlines()[0]) from error
