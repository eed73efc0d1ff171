"""RefCOCO, RefCOCO+ (Yu et al., ECCV 2016) and RefCOCOg (Mao et al., CVPR 2016) as array_record: one record a picture.

    python -m datasets.build refcoco      --raw=<where train2014/ refcoco/ lie> --out=data/tfds
    python -m datasets.build refcoco_plus --raw=<where train2014/ refcoco+/ lie> --out=data/tfds
    python -m datasets.build refcocog     --raw=<where train2014/ refcocog/ lie> --out=data/tfds

A picture is a video of one frame, '0', with the sentences of its split. Its masks are those of the objects that
they refer to, which may overlap, so each has a PNG of 0 and 1 of its own: `mask_places` in metadata.json.
Expressions have the numbers of the converted files. Those of a crowd have the tag 'crowd': training leaves them out.
"""
import functools
import io
import pathlib

from absl import logging
import tensorflow_datasets as tfds

from datasets.refcoco import raw
from datasets.video_records import VideoRecords, encode_png

# Sentences of each split as others report them; the log compares, nothing depends on it.
REPORTED = {
    'refcoco': {'train': 120624, 'val': 10834, 'testA': 5657, 'testB': 5095},
    'refcoco+': {'train': 120191, 'val': 10758, 'testA': 5726, 'testB': 4889},
    'refcocog': {'train': 80512, 'val': 4896, 'test': 9602},
}


class Refcoco(VideoRecords):
    """RefCOCO: pictures of COCO and sentences of a two-player game (division of UNC)."""
    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'One record a picture.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Download train2014.zip of COCO and refcoco.zip, refcoco+.zip or refcocog.zip of REFER '
        '(https://github.com/lichengunc/refer), and unpack them into one folder.')

    ITEM = 'picture'
    FOLDER = 'refcoco'
    REFS = 'refs(unc).p'

    def splits(self, root: pathlib.Path):
        found = raw.find_pictures(root)
        splits = raw.read_splits(root, self.FOLDER, self.REFS, tuple(REPORTED[self.FOLDER]))
        for split, pictures in splits.items():
            logging.info('%s %s: %d pictures, %d sentences (reported: %d).', self.FOLDER, split, len(pictures),
                         sum(len(picture.sentences) for picture in pictures), REPORTED[self.FOLDER][split])
        return {split: (pictures, functools.partial(read_record, root, found)) for split, pictures in splits.items()}


def read_record(root: pathlib.Path, found: tuple[pathlib.Path, dict[str, list[str]]], picture: raw.Picture
                ) -> tuple[dict, dict, dict]:
    """A picture as `VideoRecords` wants it; `found`: as `raw.find_pictures` gives it.

    Raises FileNotFoundError, ValueError: its file is missing, broken or of another size, or an outline is wrong.
    """
    data = raw.read_jpeg(found, picture, root)
    places = [[0, number] for number in range(1, len(picture.segmentations) + 1)]
    masks = [encode_png(raw.render(picture, number)) for _, number in places]
    entry = {'video': picture.name, 'frame_names': ['0'], 'height': picture.height, 'width': picture.width,
             'expressions': [{'id': sentence.id, 'text': sentence.text, 'object_id': sentence.object_id,
                              'tags': 'crowd' * sentence.crowd} for sentence in picture.sentences]}
    return entry, {'has_masks': True, 'mask_places': places}, {
        'frames': [io.BytesIO(data)], 'masks': list(map(io.BytesIO, masks))}


class RefcocoPlus(Refcoco):
    """RefCOCO+: as RefCOCO, without words of place (division of UNC)."""
    VERSION = tfds.core.Version('1.0.0')
    FOLDER = 'refcoco+'


class Refcocog(Refcoco):
    """RefCOCOg: pictures of COCO and longer sentences (division of UMD)."""
    VERSION = tfds.core.Version('1.0.0')
    FOLDER = 'refcocog'
    REFS = 'refs(umd).p'
