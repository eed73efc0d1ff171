"""Ref-YouTube-VOS and RefCOCO/+/g together: each picture becomes a clip of five frames by warping it.

    python train.py --config=configs/joint.py --workdir=runs/joint \\
        --config.init="('swin_tiny_kinetics.pth', 'roberta-base/model.safetensors')"

    python evaluate.py --config=configs/joint.py --workdir=runs/joint

An epoch has all clips of Ref-YouTube-VOS and one clip per RefCOCO sentence, sampled uniformly. Both get the
augmentation of Ref-YouTube-VOS; the release flips and recolours pictures before it resizes them. We do not know its
joint schedule and use that of configs/ytvos.py. A twentieth of each data set is held out. There is no published score
to compare with. For hardware and tokenizer see configs/ytvos.py. Not yet run in full.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common, ytvos


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode."""
    config = ytvos.get_config()
    config.data.update(
        records=('data/tfds/ref_youtube_vos', 'data/tfds/refcoco', 'data/tfds/refcoco_plus', 'data/tfds/refcocog'),
        train_split='train[:95%]',
        valid_split='train[95%:]',
        frame_size=(640, 640),
    )  # pictures may be tall
    config.evaluation.records = ('data/tfds/ref_youtube_vos',)
    return common.apply_mode(config, mode)
