"""Ref-DAVIS17 with SOC trained on Ref-YouTube-VOS: evaluation only.

    python -m datasets.build ref_davis --raw=refer_davis --out=data/tfds
    python evaluate.py --config=configs/davis_soc.py --workdir=runs/ytvos_soc

See configs/davis.py and configs/ytvos_soc.py. Video-Swin-B: configs/davis_soc.py:base.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import ytvos_soc


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode. The model is that of configs/ytvos_soc.py."""
    config = ytvos_soc.get_config(mode)
    config.evaluation.update(protocol='davis', records=('data/tfds/ref_davis',), split='valid')
    return config
