"""Ref-YouTube-VOS (Seo et al., ECCV 2020) as array_record: one record a video.

    python -m datasets.build ref_youtube_vos --raw=<where train/ valid/ meta_expressions/ lie> --out=data/tfds
"""
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

    def _split_generators(self, dl_manager):
        # Every expressions file is checked before the first frame is copied.
        return {split.name: self._generate_examples(split, videos)
                for split, videos in self._read_splits(pathlib.Path(dl_manager.manual_dir))}

    def _read_splits(self, root: pathlib.Path) -> list[tuple[raw.Split, list[raw.Video]]]:
        splits = raw.find_splits(root, self.FRAME_FOLDERS, self.MASK_FOLDERS)
        return [(split, raw.select_videos(root, split, raw.read_videos(split), self.HIDDEN_TEST))
                for split in splits.values()]

    def _generate_examples(self, split: raw.Split, videos: list[raw.Video]):
        def read(video):
            files = raw.frame_files(split, video)
            height, width = raw.check_frames(files, split)
            masks = raw.read_masks(split, video, height, width)
            expressions = [{'id': expression.id, 'text': expression.text,
                            'object_id': expression.object_id if masks else -1,
                            'tags': ' '.join(expression.tags)} for expression in video.expressions]
            entry = {'video': video.name, 'frame_names': list(video.frames), 'expressions': expressions,
                     'height': height, 'width': width}
            return entry, {'has_masks': bool(masks)}, {
                'frames': [str(file) for file in files], 'masks': [io.BytesIO(mask) for mask in masks]}

        return self._write(split.name, videos, read)
