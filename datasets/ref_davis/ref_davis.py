"""Ref-DAVIS17 (Khoreva et al., ACCV 2018), as downloaded or converted to the layout of Ref-YouTube-VOS.

    python -m datasets.build ref_davis --raw=<where DAVIS/ davis_text_annotations/ lie> --out=data/tfds
    python -m datasets.build ref_davis --raw=<where valid/ meta_expressions/ lie> --out=data/tfds

Four expressions per object: annotator 1 first frame, 1 full video, 2 first frame, 2 full video.
"""

import pathlib

import tensorflow_datasets as tfds

from sgmg_jax.datasets.ref_davis import raw
from sgmg_jax.datasets.video_records import VideoRecords
from sgmg_jax.raw import common


class RefDavis(VideoRecords):
    """Ref-DAVIS17: DAVIS-2017 videos with sentences of two annotators."""

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'One record a video.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Download DAVIS-2017-Unsupervised-trainval-480p.zip and davis_text_annotations.zip and unpack both into '
        'one folder.'
    )

    def splits(self, root: pathlib.Path) -> common.Splits:
        return raw.splits(root)
