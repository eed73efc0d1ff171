"""Fast SgMg on Ref-YouTube-VOS, trained from scratch as in the paper: one pass for all sentences of a clip.

    python -m datasets.build ref_youtube_vos --raw=refer_youtube_vos --out=data/tfds
    python train.py    --config=configs/ytvos_fast.py --workdir=runs/ytvos_fast \\
        --config.init="('swin_tiny_kinetics.pth', 'roberta-base/model.safetensors')"
    python evaluate.py --config=configs/ytvos_fast.py --workdir=runs/ytvos_fast     # leaderboard files
    python evaluate.py --config=configs/davis_fast.py --workdir=runs/ytvos_fast     # Ref-DAVIS17, by annotators

The paper (Table 4, Video-Swin-T) reports J&F 54.2 on Ref-YouTube-VOS and 54.2 on Ref-DAVIS17; SgMg has 58.9 and 56.7.
The authors did not release this model, its weights or its training code. Our own choices: how sentences are drawn
(data/pipeline.py, choose_sentences), the form of the decoupling (models/multi_instance.py), and twice SgMg's epochs,
because a clip with all its sentences counts once per epoch here and once per sentence there. Training can start from
SgMg's weights: --config.init=runs/ytvos.

Video-Swin-B: configs/ytvos_fast.py:base. Eight clips of 5 frames with up to six sentences each need several
accelerators. Training needs RoBERTa's vocab.json and merges.txt in data/roberta-base. Not yet run in full.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common, ytvos


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode."""
    config = ytvos.get_config()
    config.model.name = 'fast_sgmg'
    config.model.decoupling = 'residual'  # models/multi_instance.py: DECOUPLINGS
    config.epochs = 18.0
    config.optimizer.drop_epochs = (12, 16)
    config.data.sentences = 6
    config.evaluation.sentences = 12  # the most in any video of the validation and test splits
    return common.apply_mode(config, mode)
