"""A2D-Sentences (Gavrilyuk et al., CVPR 2018) as array_record: one record a video.

    python -m datasets.build a2d_sentences --raw=<where Release/ text_annotations/ lie> --out=data/tfds

Only three to five frames of a video are annotated, and an instance may be absent from some of them: `mask_places` in
metadata.json gives the frame and object of each of a record's masks. The film is stored as it is, and its frames are
decoded on demand.
"""

from collections.abc import Callable, Sequence
import functools
import pathlib

from absl import logging
import numpy as np
import tensorflow_datasets as tfds

from sgmg_jax.datasets.a2d_sentences import raw
from sgmg_jax.datasets.video_records import VideoRecords
from sgmg_jax.raw import common


class A2dSentences(VideoRecords):
    """Videos of actors and actions, sentences that each refer to one instance, its masks in a few frames."""

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'One record a video.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Download the clips of A2D and the text annotations (a2d_annotation.txt, a2d_missed_videos.txt, '
        'a2d_annotation_with_instances.zip) from the pages of A2D and A2D-Sentences, and unpack them into Release/ '
        'and text_annotations/ of one folder.'
    )

    # One element, the bytes of the mp4.
    FRAMES = {'film': tfds.features.Sequence(tfds.features.Tensor(shape=(), dtype=np.object_))}

    def splits(self, root: pathlib.Path) -> common.Splits:
        return {
            split: (videos, functools.partial(self._read, read)) for split, (videos, read) in raw.splits(root).items()
        }

    def _read(self, read: Callable[..., common.Parts | None], video: raw.Video) -> common.Parts | None:
        parts = read(video)
        kept = {expression['id'] for expression in parts[0]['expressions']} if parts else ()
        self._away += [
            f'{video.name} {expression.instance}'
            for expression in video.expressions
            if str(expression.instance) not in kept
        ]
        return parts

    def _write(self, split: str, videos: Sequence, read: Callable, shards: int | None) -> tfds.core.SplitInfo:
        self._away: list[str] = []
        info = super()._write(split, videos, read, shards)
        if self._away:
            logging.warning(
                'Left out %d expressions of %s whose instance is annotated in no frame (video, instance): %s',
                len(self._away),
                split,
                ', '.join(self._away),
            )
        return info
