"""JHMDB-Sentences with SOC trained on A2D-Sentences: evaluation only.

    python -m datasets.build jhmdb_sentences --raw=jhmdb_sentences --out=data/tfds
    python evaluate.py --config=configs/jhmdb_soc.py --workdir=runs/a2d_soc

See configs/jhmdb.py and configs/a2d_soc.py. Video-Swin-B: configs/jhmdb_soc.py:base.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import a2d_soc


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode. The model is that of configs/a2d_soc.py."""
    config = a2d_soc.get_config(mode)
    config.evaluation.update(protocol='jhmdb', records=('data/tfds/jhmdb_sentences',))
    return config
