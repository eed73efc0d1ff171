"""Fast SgMg on MeViS: one pass for all sentences of a clip.

    python -m datasets.build mevis --raw=mevis --out=data/tfds
    python train.py    --config=configs/mevis_fast.py --workdir=runs/mevis_fast \\
        --config.init="('swin_tiny_kinetics.pth', 'roberta-base/model.safetensors')"
    python evaluate.py --config=configs/mevis_fast.py --workdir=runs/mevis_fast

See configs/mevis.py for the data, and configs/ytvos_fast.py for the model and its schedule. Video-Swin-B:
configs/mevis_fast.py:base. Not yet run in full.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common, mevis, ytvos_fast


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode."""
    return common.apply_mode(mevis.on_mevis(ytvos_fast.get_config()), mode)
