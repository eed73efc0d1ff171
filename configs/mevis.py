"""MeViS, sentences about motion, of one object, of several or of none.

    python -m datasets.build mevis --raw=mevis --out=data/tfds
    python train.py    --config=configs/mevis.py --workdir=runs/mevis \\
        --config.init="('swin_tiny_kinetics.pth', 'roberta-base/model.safetensors')"
    python evaluate.py --config=configs/mevis.py --workdir=runs/mevis     # scores on valid_u
    python evaluate.py --config=configs/mevis.py --workdir=runs/mevis \\
        --config.evaluation.split=valid     # leaderboard files

SgMg was never reported on it; schedule and learning rates are those of configs/ytvos.py. Clips are never reversed: a
sentence about motion would become false. Checkpoints are chosen on valid_u, 50 videos with ground truth that are not in
train. SgMg always chooses a query. To leave masks empty where a sentence may refer to nothing (second edition), set
--config.evaluation.threshold to what --try_thresholds finds on valid_u.

Video-Swin-B: configs/mevis.py:base. For hardware and tokenizer see configs/ytvos.py. Not yet run in full.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common, ytvos


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode."""
    return common.apply_mode(on_mevis(ytvos.get_config()), mode)


def on_mevis(config: ConfigDict) -> ConfigDict:
    """The experiment of a config for Ref-YouTube-VOS, on MeViS."""
    config.data.update(
        records=('data/tfds/mevis',), train_split='train', valid_split='valid_u', reverse_probability=0.0
    )
    config.evaluation.update(protocol='mevis', split='valid_u')
    return config
