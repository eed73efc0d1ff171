"""Ref-DAVIS17 (Khoreva et al., ACCV 2018), as downloaded or converted to the layout of Ref-YouTube-VOS.

    python -m datasets.build ref_davis --raw=<where DAVIS/ davis_text_annotations/ lie> --out=data/tfds
    python -m datasets.build ref_davis --raw=<where valid/ meta_expressions/ lie> --out=data/tfds

Four expressions an object: annotator 1 first frame, 1 full video, 2 first frame, 2 full video.
"""
import dataclasses
import functools
import pathlib

from absl import logging
import tensorflow_datasets as tfds

from datasets.ref_davis import raw
from datasets.ref_youtube_vos import ref_youtube_vos


class RefDavis(ref_youtube_vos.RefYoutubeVos):
    """Ref-DAVIS17: DAVIS-2017 videos with sentences of two annotators."""
    VERSION = tfds.core.Version('1.0.0')
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Download DAVIS-2017-Unsupervised-trainval-480p.zip and davis_text_annotations.zip and unpack both into '
        'one folder.')

    # Packs differ in whether they keep the level of resolution that DAVIS has. The folder with it
    # comes first: beside it `Annotations/` may hold a single PNG, kept for its palette.
    FRAME_FOLDERS = ('{split}/JPEGImages/480p', '{split}/JPEGImages', 'DAVIS/JPEGImages/480p')
    MASK_FOLDERS = ('{split}/Annotations_unsupervised/480p', '{split}/Annotations/480p',
                    '{split}/Annotations', 'DAVIS/Annotations_unsupervised/480p')
    HIDDEN_TEST = False

    def splits(self, root: pathlib.Path):
        if not (root / 'meta_expressions').is_dir():
            return {split.name: (videos, functools.partial(read_record, split))
                    for split, videos in raw.read_splits(root)}
        if (root / raw.TEXTS).is_dir():
            logging.info('%s: holds %s too; the converted sentences of meta_expressions are taken.', root, raw.TEXTS)
        return super().splits(root)


def read_record(split, video) -> tuple[dict, dict, dict]:
    """A video of the downloads, whose frames are all that its folders hold. Raises as `ref_youtube_vos.read_record`."""
    video = dataclasses.replace(video, frames=raw.frame_names(split, video))
    return ref_youtube_vos.read_record(split, video)
