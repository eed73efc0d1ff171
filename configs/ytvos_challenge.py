"""The recipe of the challenge: SgMg pretrained for 12 epochs on RefCOCO and trained for 6 on Ref-YouTube-VOS, with
drops at 3 and 5; leaderboard files for the test split.

    python train.py    --config=configs/refcoco.py --workdir=runs/refcoco \\
        --config.init="('swin_tiny_kinetics.pth', 'roberta-base/model.safetensors')"
    python train.py    --config=configs/ytvos_challenge.py --workdir=runs/ytvos_challenge --config.init=runs/refcoco
    python evaluate.py --config=configs/ytvos_challenge.py --workdir=runs/ytvos_challenge     # leaderboard files

The training is that of configs/ytvos_finetune.py; what differs is the split that evaluate.py predicts, the 305 videos
of the challenge's test phase. Unpack the test archive before building the data set. evaluate.py writes
runs/ytvos_challenge/evaluation/ref_youtube_vos_test/submission.zip; the split has no public ground truth, so there are
no scores. Video-Swin-B: configs/refcoco.py:base and configs/ytvos_challenge.py:base. For hardware and tokenizer see
configs/ytvos.py. Not yet run in full.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common, ytvos_finetune


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode."""
    config = ytvos_finetune.get_config()
    config.evaluation.split = 'test'
    return common.apply_mode(config, mode)
