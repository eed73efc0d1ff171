"""RefCOCO, RefCOCO+ (Yu et al., ECCV 2016) and RefCOCOg (Mao et al., CVPR 2016) as array_record: one record a picture.

    python -m datasets.build refcoco      --raw=<where train2014/ refcoco/ lie> --out=data/tfds
    python -m datasets.build refcoco_plus --raw=<where train2014/ refcoco+/ lie> --out=data/tfds
    python -m datasets.build refcocog     --raw=<where train2014/ refcocog/ lie> --out=data/tfds

A picture is a video of one frame, '0', with the sentences of its split. Its masks are those of the objects that
they refer to, which may overlap, so each has a PNG of 0 and 1 of its own: `mask_places` in metadata.json.
Expressions have the numbers of the converted files. Those of a crowd have the tag 'crowd': training leaves them out.
"""
import tensorflow_datasets as tfds

from datasets.refcoco import raw
from datasets.video_records import VideoRecords


class Refcoco(VideoRecords):
    """RefCOCO: pictures of COCO and sentences of a two-player game (division of UNC)."""
    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'One record a picture.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Download train2014.zip of COCO and refcoco.zip, refcoco+.zip or refcocog.zip of REFER '
        '(https://github.com/lichengunc/refer), and unpack them into one folder.')

    ITEM = 'picture'
    FOLDER = 'refcoco'

    def splits(self, root):
        return raw.splits(root, self.FOLDER)


class RefcocoPlus(Refcoco):
    """RefCOCO+: as RefCOCO, without words of place (division of UNC)."""
    VERSION = tfds.core.Version('1.0.0')
    FOLDER = 'refcoco+'


class Refcocog(Refcoco):
    """RefCOCOg: pictures of COCO and longer sentences (division of UMD)."""
    VERSION = tfds.core.Version('1.0.0')
    FOLDER = 'refcocog'
