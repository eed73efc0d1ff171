"""What the records of all data sets share; sgmg_jax/data/records.py reads them.

The list of videos and sentences is also written to metadata.json beside the records, in their
order, so that a reader can index sentences without reading frames.
"""
from collections.abc import Callable, Iterable
import io

from absl import logging
import numpy as np
from PIL import Image
import tensorflow_datasets as tfds


def frames(encoding: str) -> dict:
    """The feature of frames that are kept as files of this encoding, 'jpeg' or 'png'."""
    return {'frames': tfds.features.Sequence(tfds.features.Image(shape=(None, None, 3), encoding_format=encoding))}


def encode_png(index: np.ndarray) -> bytes:
    """A grey PNG of a map of object ids, or of 0 and 1 [H W]."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(index, np.uint8)).save(stream, 'PNG')
    return stream.getvalue()


class VideoRecords(tfds.core.GeneratorBasedBuilder):
    """Builds one record a video, or a picture. Subclasses say what the frames are kept as, and give the splits."""
    FRAMES = frames('jpeg')
    ITEM = 'video'

    def __init__(self, *, skip_bad_videos: bool = False, **kwargs):
        """skip_bad_videos: leave out, with a counted warning, videos of which a file is broken."""
        self._skip_bad_videos = skip_bad_videos
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
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

    def _write(self, split: str, videos: Iterable, read: Callable):
        """Generates the records of a split and lists them in the metadata.

        Args:
            read: function(video) -> what record and metadata both have, what only the metadata have, what only the
                record has; or None to leave the video out. OSError and ValueError: a file of it is broken.
        """
        listed = self.info.metadata['videos'][split] = []
        skipped = 0
        for key, video in enumerate(videos):
            try:
                parts = read(video)
            except (OSError, ValueError) as error:
                if not self._skip_bad_videos:
                    raise
                skipped += 1
                logging.warning('Skipped a bad %s of %s, number %d: %s', self.ITEM, split, skipped, error)
                continue
            if parts:
                entry, described, content = parts
                listed.append(entry | described)
                yield key, entry | content
