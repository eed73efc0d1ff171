"""MeViS (Ding et al., ICCV 2023), both editions, as array_record: one record per video.

    python -m datasets.build mevis --raw=<where train/ valid_u/ valid/ lie> --out=data/tfds

A sentence may refer to several objects, which means their union, or to none (second edition, arXiv 2512.10945). Objects
may overlap: `mask_layers` in metadata.json gives the objects of each of a frame's maps.
"""

import pathlib

import tensorflow_datasets as tfds

from sgmg_jax.datasets.mevis import raw
from sgmg_jax.datasets.video_records import VideoRecords
from sgmg_jax.raw import common


class Mevis(VideoRecords):
    """Videos, sentences about motion that each refer to any number of objects in them, and the objects' masks."""

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'One record a video.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Download MeViS as https://github.com/henghuiding/MeViS shows, and unpack it into one folder with train/, '
        'valid_u/ and valid/. JPEGImages.tar may stay packed.'
    )

    # Numbers, separated by spaces; empty for a sentence without target. (A list in a list would need TensorFlow.)
    OBJECTS = {'object_ids': tfds.features.Text()}

    def splits(self, root: pathlib.Path) -> common.Splits:
        return raw.splits(root)
