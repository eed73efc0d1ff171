"""A2D-Sentences (Gavrilyuk et al., CVPR 2018) as array_record: one record a video.

    python -m datasets.build a2d_sentences --raw=<where Release/ text_annotations/ lie> --out=data/tfds

Only three to five frames of a video are annotated, and an instance may be away from some of them: `mask_places` in
metadata.json says whose mask in which frame each of a record's masks is. The film is kept as it is and its frames
are decoded when they are asked for.
"""
import functools
import io
import pathlib

from absl import logging
import numpy as np
import tensorflow_datasets as tfds

from datasets.a2d_sentences import raw
from datasets.video_records import VideoRecords


class A2dSentences(VideoRecords):
    """Videos of actors and actions, sentences that each refer to one instance, its masks in a few frames."""
    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'One record a video.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Download the clips of A2D and the text annotations (a2d_annotation.txt, a2d_missed_videos.txt, '
        'a2d_annotation_with_instances.zip) from the pages of A2D and A2D-Sentences, and unpack them into Release/ '
        'and text_annotations/ of one folder.')

    # One element, the bytes of the mp4.
    FRAMES = {'film': tfds.features.Sequence(tfds.features.Tensor(shape=(), dtype=np.object_))}

    def splits(self, root: pathlib.Path):
        videos = raw.read_videos(root)  # Every text file is checked before the first film is copied.
        return {split: (videos[split], functools.partial(self._read, root)) for split in videos}

    def _read(self, root: pathlib.Path, video: raw.Video):
        film, num_frames, height, width = raw.read_film(root, video)
        masks = raw.read_masks(root, video, num_frames, height, width)
        annotated = {instance for _, instance in masks}
        self._away += [f'{video.name} {expression.instance}' for expression in video.expressions
                       if expression.instance not in annotated]
        # An object's id is its instance + 1, since 0 is background elsewhere.
        expressions = [{'id': str(expression.instance), 'text': expression.text,
                        'object_id': expression.instance + 1, 'tags': ''}
                       for expression in video.expressions if expression.instance in annotated]
        if not expressions:
            return None
        entry = {'video': video.name, 'frame_names': [f'{number:05d}' for number in range(1, num_frames + 1)],
                 'expressions': expressions, 'height': height, 'width': width}
        places = [[frame, instance + 1] for frame, instance in masks]
        return entry, {'has_masks': True, 'mask_places': places}, {
            'film': [film], 'masks': list(map(io.BytesIO, masks.values()))}

    def _write(self, split, videos, read, shards):
        self._away = []
        info = super()._write(split, videos, read, shards)
        if self._away:
            logging.warning('Left out %d expressions of %s whose instance is annotated in no frame (video, instance): '
                            '%s', len(self._away), split, ', '.join(self._away))
        return info
