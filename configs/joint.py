"""Ref-YouTube-VOS and RefCOCO/+/g together: pictures become clips of five by warping them.

    python train.py --config=configs/joint.py --workdir=runs/joint \\
        --config.init="('swin_tiny_kinetics.pth', 'roberta-base/model.safetensors')"

All clips of an epoch are drawn alike, those of Ref-YouTube-VOS and one of each RefCOCO sentence. Augmentation is that
of Ref-YouTube-VOS for both; the release flips and recolours pictures before it resizes them, which is the same but for
rounding. Its joint schedule is not known here: this is the one of configs/ytvos.py. Not yet run in full.
"""
from configs import common, ytvos


def get_config(mode='full'):
    """mode: see common.apply_mode."""
    config = ytvos.get_config()
    config.data.update(
        records=('data/tfds/ref_youtube_vos', 'data/tfds/refcoco', 'data/tfds/refcoco_plus', 'data/tfds/refcocog'),
        train_split='train')
    # All of Ref-YouTube-VOS is trained on, and its valid split has no public ground truth: Ref-DAVIS17 is scored.
    config.evaluation.update(protocol='davis', records=('data/tfds/ref_davis',))
    config.data.valid_split = 'valid'
    return common.apply_mode(config, mode)
