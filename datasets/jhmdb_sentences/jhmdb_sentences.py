"""JHMDB-Sentences (Gavrilyuk et al., CVPR 2018) as array_record: one record a video, to evaluate on.

    python -m datasets.build jhmdb_sentences --raw=<where Rename_Images/ puppet_mask/ lie> --out=data/tfds

    jhmdb_sentences_samples_metadata.json            the sentences, and the frames that are scored
    Rename_Images/<action>/<video>/<frame>.png       named from 00001
    puppet_mask/<action>/<video>/puppet_mask.mat     part_mask (H, W, T), 0 and 1

Three frames per video are scored: the first of these files lists them. Other releases drew other frames, so scores are
comparable only within this one. Only the masks of these frames are kept, in order; see `mask_places` in metadata.json.
"""

import pathlib

import tensorflow_datasets as tfds

from sgmg_jax.datasets import video_records
from sgmg_jax.datasets.jhmdb_sentences import raw
from sgmg_jax.raw import common


class JhmdbSentences(video_records.VideoRecords):
    """Short clips of one person each, a sentence about the person, its masks in the scored frames."""

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'One record a video.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Download Rename_Images.tar.gz and puppet_mask.zip from the page of JHMDB, unpack them into one folder, and '
        f'add {raw.METADATA} of the release of MTTR.'
    )

    FRAMES = video_records.frames('png')

    def splits(self, root: pathlib.Path) -> common.Splits:
        return raw.splits(root)
