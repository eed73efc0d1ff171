"""RefCOCO, RefCOCO+ (Yu et al., ECCV 2016) and RefCOCOg (Mao et al., CVPR 2016) as array_record: one record a picture.

    python -m datasets.build refcoco      --raw=<where train2014/ refcoco/ lie> --out=data/tfds
    python -m datasets.build refcoco_plus --raw=<where train2014/ refcoco+/ lie> --out=data/tfds
    python -m datasets.build refcocog     --raw=<where train2014/ refcocog/ lie> --out=data/tfds

A picture is a video of one frame, '0', with the sentences of its split. The objects that they refer to may overlap, so
each has its own mask, a PNG of 0 and 1; see `mask_places` in metadata.json. The ids of expressions are their numbers
in the converted files. Expressions about a crowd have the tag 'crowd': training ignores them.
"""

import pathlib

import tensorflow_datasets as tfds

from sgmg_jax.datasets.refcoco import raw
from sgmg_jax.datasets.video_records import VideoRecords
from sgmg_jax.raw import common


class Refcoco(VideoRecords):
    """RefCOCO: pictures of COCO and sentences of a two-player game (division of UNC)."""

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'One record a picture.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Download train2014.zip of COCO and refcoco.zip, refcoco+.zip or refcocog.zip of REFER '
        '(https://github.com/lichengunc/refer), and unpack them into one folder.'
    )

    ITEM = 'picture'
    FOLDER = 'refcoco'

    def splits(self, root: pathlib.Path) -> common.Splits:
        return raw.splits(root, self.FOLDER)


class RefcocoPlus(Refcoco):
    """RefCOCO+: as RefCOCO, without words of place (division of UNC)."""

    VERSION = tfds.core.Version('1.0.0')
    FOLDER = 'refcoco+'


class Refcocog(Refcoco):
    """RefCOCOg: pictures of COCO and longer sentences (division of UMD)."""

    VERSION = tfds.core.Version('1.0.0')
    FOLDER = 'refcocog'
