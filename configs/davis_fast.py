"""Ref-DAVIS17 with Fast SgMg trained on Ref-YouTube-VOS: one pass for all sentences of an annotator.

    python -m datasets.build ref_davis --raw=<folder with DAVIS/ and davis_text_annotations/> --out=data/tfds
    python evaluate.py --config=configs/davis_fast.py --workdir=runs/ytvos_fast

See configs/davis.py and configs/ytvos_fast.py. The paper (Table 4, Video-Swin-T) reports J&F 54.2. Video-Swin-B:
configs/davis_fast.py:base.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import ytvos_fast


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode. The model is that of configs/ytvos_fast.py."""
    config = ytvos_fast.get_config(mode)
    config.evaluation.update(protocol='davis', records=('data/tfds/ref_davis',), split='valid')
    return config
