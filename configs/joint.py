"""Ref-YouTube-VOS and RefCOCO/+/g together: pictures become clips of five by warping them.

    python train.py --config=configs/joint.py --workdir=runs/joint \\
        --config.init="('swin_tiny_kinetics.pth', 'roberta-base/model.safetensors')"

    python evaluate.py --config=configs/joint.py --workdir=runs/joint

All clips of an epoch are drawn alike, those of Ref-YouTube-VOS and one of each RefCOCO sentence. Augmentation is that
of Ref-YouTube-VOS for both; the release flips and recolours pictures before it resizes them. Its joint schedule is not
known here: this is the one of configs/ytvos.py. A twentieth of each data set is held out. No score to compare with;
hardware and tokenizer as configs/ytvos.py says. Not yet run in full.
"""
from configs import common, ytvos


def get_config(mode='full'):
    """mode: see common.apply_mode."""
    config = ytvos.get_config()
    config.data.update(
        records=('data/tfds/ref_youtube_vos', 'data/tfds/refcoco', 'data/tfds/refcoco_plus', 'data/tfds/refcocog'),
        train_split='train[:95%]', valid_split='train[95%:]', frame_size=(640, 640))  # pictures may be tall
    config.evaluation.records = ('data/tfds/ref_youtube_vos',)
    return common.apply_mode(config, mode)
