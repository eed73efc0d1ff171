"""JHMDB-Sentences with a model trained on A2D-Sentences: evaluation only, as in the paper.

    python -m datasets.build jhmdb_sentences --raw=jhmdb_sentences --out=data/tfds
    python evaluate.py --config=configs/jhmdb.py --workdir=runs/a2d

Nothing is trained. Or, with released weights, a new --workdir and --config.init=a2d_swin_t.pth. Three frames of each
video, each with two before and two after it; all queries are scored. With Video-Swin-B: configs/jhmdb.py:base. The
paper: mAP 44.4 with Video-Swin-T, 45.0 with Video-Swin-B.
"""
from configs import a2d


def get_config(mode='full'):
    """mode: see common.apply_mode; the model is that of configs/a2d.py."""
    config = a2d.get_config(mode)
    config.evaluation.update(protocol='jhmdb', records=('data/tfds/jhmdb_sentences',))
    return config
