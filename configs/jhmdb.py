"""JHMDB-Sentences with a model trained on A2D-Sentences: evaluation only, as in the paper.

    python -m datasets.build jhmdb_sentences --raw=jhmdb_sentences --out=data/tfds
    python evaluate.py --config=configs/jhmdb.py --workdir=runs/a2d

To evaluate released weights, give a new --workdir and --config.init=a2d_swin_t.pth. Three frames of each video are
segmented, each with two frames before and two after it as context; all queries are scored. Video-Swin-B:
configs/jhmdb.py:base. The paper reports mAP 44.4 with Video-Swin-T and 45.0 with Video-Swin-B.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import a2d


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode. The model is that of configs/a2d.py."""
    config = a2d.get_config(mode)
    config.evaluation.update(protocol='jhmdb', records=('data/tfds/jhmdb_sentences',))
    return config
