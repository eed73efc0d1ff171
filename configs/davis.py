"""Ref-DAVIS17 with a model trained on Ref-YouTube-VOS: evaluation only, as in the paper.

    python -m datasets.build ref_davis --raw=refer_davis --out=data/tfds
    python evaluate.py --config=configs/davis.py --workdir=runs/ytvos

To evaluate released weights, give a new --workdir and --config.init=ytvos_swin_t.pth. Videos are cut into clips of 36
frames. For each of the four annotators, the masks of all objects are merged with a background of 0.1; the score is the
mean over annotators. Video-Swin-B: configs/davis.py:base. The paper reports J&F 61.9 with Video-Swin-T and 63.3 with
Video-Swin-B, both pretrained on RefCOCO.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import ytvos


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode. The model is that of configs/ytvos.py."""
    config = ytvos.get_config(mode)
    config.evaluation.update(protocol='davis', records=('data/tfds/ref_davis',), split='valid')
    return config
