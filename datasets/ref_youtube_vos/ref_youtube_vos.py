"""Ref-YouTube-VOS (Seo et al., ECCV 2020) as array_record: one record per video.

python -m datasets.build ref_youtube_vos --raw=<where train/ valid/ meta_expressions/ lie> --out=data/tfds
"""

import pathlib

import tensorflow_datasets as tfds

from sgmg_jax.datasets.ref_youtube_vos import raw
from sgmg_jax.datasets.video_records import VideoRecords
from sgmg_jax.raw import common


class RefYoutubeVos(VideoRecords):
    """Videos, the sentences that each refer to one object in them, and the object's masks."""

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'One record a video.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Download the archives from https://competitions.codalab.org/competitions/29139 (train.zip, '
        'valid.zip, meta_expressions.zip) and unpack them into one folder.'
    )

    def splits(self, root: pathlib.Path) -> common.Splits:
        return raw.splits(root)
