"""SOC on MeViS.

    python -m datasets.build mevis --raw=mevis --out=data/tfds
    python train.py    --config=configs/mevis_soc.py --workdir=runs/mevis_soc \\
        --config.init="('swin_tiny_kinetics.pth', 'roberta-base/model.safetensors')"
    python evaluate.py --config=configs/mevis_soc.py --workdir=runs/mevis_soc

See configs/mevis.py for the data, and configs/ytvos_soc.py for the model and its schedule. SOC was never reported on
MeViS. Video-Swin-B: configs/mevis_soc.py:base. Not yet run in full.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common, mevis, ytvos_soc


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode."""
    return common.apply_mode(mevis.on_mevis(ytvos_soc.get_config()), mode)
