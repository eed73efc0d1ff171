"""Ref-YouTube-VOS (Seo et al., ECCV 2020) as array_record: one record a video.

    python -m datasets.build ref_youtube_vos --raw=<where train/ valid/ meta_expressions/ lie> --out=data/tfds
"""
import functools
import io
import pathlib

import tensorflow_datasets as tfds

from datasets.ref_youtube_vos import raw
from datasets.video_records import VideoRecords


class RefYoutubeVos(VideoRecords):
    """Videos, the sentences that each refer to one object in them, and the object's masks."""
    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'One record a video.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Download the archives from https://competitions.codalab.org/competitions/29139 (train.zip, '
        'valid.zip, meta_expressions.zip) and unpack them into one folder.')

    FRAME_FOLDERS = ('{split}/JPEGImages',)
    MASK_FOLDERS = ('{split}/Annotations',)
    HIDDEN_TEST = True  # The valid expressions file also lists the videos of the test phase.

    def splits(self, root: pathlib.Path):
        # Every expressions file is checked before the first frame is copied.
        return {split.name: (videos, functools.partial(read_record, split))
                for split, videos in self._read_splits(root)}

    def _read_splits(self, root: pathlib.Path) -> list[tuple[raw.Split, list[raw.Video]]]:
        splits = raw.find_splits(root, self.FRAME_FOLDERS, self.MASK_FOLDERS)
        return [(split, raw.select_videos(root, split, videos, self.HIDDEN_TEST))
                for split in splits.values() if (videos := raw.read_videos(split))]


def read_record(split: raw.Split, video: raw.Video) -> tuple[dict, dict, dict]:
    """A video as `VideoRecords` wants it. Raises FileNotFoundError, ValueError: a file of it is missing or broken."""
    frames, height, width = raw.read_frames(split, video)
    masks = raw.read_masks(split, video, height, width)
    expressions = [{'id': expression.id, 'text': expression.text, 'object_id': expression.object_id if masks else -1,
                    'tags': ' '.join(expression.tags)} for expression in video.expressions]
    entry = {'video': video.name, 'frame_names': list(video.frames), 'expressions': expressions,
             'height': height, 'width': width}
    return entry, {'has_masks': bool(masks)}, {'frames': list(map(io.BytesIO, frames)),
                                               'masks': list(map(io.BytesIO, masks))}
