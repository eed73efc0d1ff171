"""Ref-DAVIS17 with a model trained on Ref-YouTube-VOS: evaluation only, as in the paper.

    python -m datasets.build ref_davis --raw=refer_davis --out=data/tfds
    python evaluate.py --config=configs/davis.py --workdir=runs/ytvos

Or, with released weights, a new --workdir and --config.init=ytvos_swin_t.pth. Clips of 36 frames; the objects of each
of four annotators are merged with a background of 0.1; the score is the mean of the four. With Video-Swin-B:
configs/davis.py:base. The paper: J&F 61.9 with Video-Swin-T, 63.3 with Video-Swin-B, pretrained on RefCOCO.
"""
from configs import ytvos


def get_config(mode='full'):
    """mode: see common.apply_mode; the model is that of configs/ytvos.py."""
    config = ytvos.get_config(mode)
    config.evaluation.update(protocol='davis', records=('data/tfds/ref_davis',), split='valid')
    return config
