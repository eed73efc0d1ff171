"""Ref-YouTube-VOS (Seo et al., ECCV 2020) as array_record: one record a video.

    python -m datasets.build ref_youtube_vos --raw=<where train/ valid/ meta_expressions/ lie> --out=data/tfds

The list of videos and sentences is also written to metadata.json beside the records, in their
order, so that a reader can index sentences without reading frames.
"""
import io
import pathlib

from absl import logging
import numpy as np
import tensorflow_datasets as tfds

from datasets.ref_youtube_vos import raw


class RefYoutubeVos(tfds.core.GeneratorBasedBuilder):
    """Videos, the sentences that each refer to one object in them, and the object's masks."""
    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'One record a video.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Download the archives from https://competitions.codalab.org/competitions/29139 (train.zip, '
        'valid.zip, meta_expressions.zip) and unpack them into one folder.')

    FRAME_FOLDERS = ('{split}/JPEGImages',)
    MASK_FOLDERS = ('{split}/Annotations',)
    HIDDEN_TEST = True  # The valid expressions file also lists the videos of the test phase.

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
                'frames': tfds.features.Sequence(
                    tfds.features.Image(shape=(None, None, 3), encoding_format='jpeg')),
                # Values are object ids, 255 is void; no element where the ground truth is hidden.
                'masks': tfds.features.Sequence(
                    tfds.features.Image(shape=(None, None, 1), encoding_format='png')),
                'expressions': tfds.features.Sequence({
                    'id': tfds.features.Text(),
                    'text': tfds.features.Text(),
                    'object_id': np.int32,  # -1 where it is hidden.
                    'tags': tfds.features.Text(),  # Words of an optional field "tags", by spaces.
                }),
                'height': np.int32,
                'width': np.int32,
            }),
            metadata=tfds.core.MetadataDict(videos={}),
            disable_shuffling=True,  # Records keep the order of the metadata.
        )

    def _split_generators(self, dl_manager):
        # Every expressions file is checked before the first frame is copied.
        return {split.name: self._generate_examples(split, videos)
                for split, videos in self._read_splits(pathlib.Path(dl_manager.manual_dir))}

    def _read_splits(self, root: pathlib.Path) -> list[tuple[raw.Split, list[raw.Video]]]:
        splits = raw.find_splits(root, self.FRAME_FOLDERS, self.MASK_FOLDERS)
        return [(split, raw.select_videos(root, split, raw.read_videos(split), self.HIDDEN_TEST))
                for split in splits.values()]

    def _generate_examples(self, split: raw.Split, videos: list[raw.Video]):
        listed = self.info.metadata['videos'][split.name] = []
        skipped = 0
        for key, video in enumerate(videos):
            try:
                files = raw.frame_files(split, video)
                height, width = raw.check_frames(files, split)
                masks = raw.read_masks(split, video, height, width)
            except (OSError, ValueError) as error:
                if not self._skip_bad_videos:
                    raise
                skipped += 1
                logging.warning('Skipped a bad video of %s, number %d: %s', split.name, skipped, error)
                continue
            expressions = [{'id': expression.id, 'text': expression.text,
                            'object_id': expression.object_id if masks else -1,
                            'tags': ' '.join(expression.tags)} for expression in video.expressions]
            entry = {'video': video.name, 'frame_names': list(video.frames), 'expressions': expressions,
                     'height': height, 'width': width}
            listed.append(entry | {'has_masks': bool(masks)})
            yield key, entry | {'frames': [str(file) for file in files],
                                'masks': [io.BytesIO(mask) for mask in masks]}
