"""JHMDB-Sentences (Gavrilyuk et al., CVPR 2018) as array_record: one record a video, to evaluate on.

    python -m datasets.build jhmdb_sentences --raw=<where Rename_Images/ puppet_mask/ lie> --out=data/tfds

    jhmdb_sentences_samples_metadata.json            the sentences, and the frames that are scored
    Rename_Images/<action>/<video>/<frame>.png       named from 00001
    puppet_mask/<action>/<video>/puppet_mask.mat     part_mask (H, W, T), 0 and 1

Scored are three frames a video, drawn once for all in the first of these files; other releases drew others, so only
numbers of this one can be compared. Only these frames' masks are kept, in their order: `mask_places` in metadata.json.
"""
import tensorflow_datasets as tfds

from datasets import video_records
from datasets.jhmdb_sentences import raw


class JhmdbSentences(video_records.VideoRecords):
    """Short clips of one person each, a sentence about the person, its masks in the scored frames."""
    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'One record a video.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Download Rename_Images.tar.gz and puppet_mask.zip from the page of JHMDB, unpack them into one folder, and '
        f'add {raw.METADATA} of the release of MTTR.')

    FRAMES = video_records.frames('png')

    def splits(self, root):
        return raw.splits(root)
