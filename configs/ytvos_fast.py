"""Fast SgMg on Ref-YouTube-VOS, from scratch as the paper trains it: all sentences of a clip in one pass.

    python -m datasets.build ref_youtube_vos --raw=refer_youtube_vos --out=data/tfds
    python train.py    --config=configs/ytvos_fast.py --workdir=runs/ytvos_fast \\
        --config.init="('swin_tiny_kinetics.pth', 'roberta-base/model.safetensors')"
    python evaluate.py --config=configs/ytvos_fast.py --workdir=runs/ytvos_fast     # leaderboard files
    python evaluate.py --config=configs/davis_fast.py --workdir=runs/ytvos_fast     # Ref-DAVIS17, by annotators

The paper (Table 4, Video-Swin-T): J&F 54.2 on Ref-YouTube-VOS and 54.2 on Ref-DAVIS17, where SgMg has 58.9 and 56.7.
The authors never released this model, its weights or its training. Ours: how sentences are drawn (data/pipeline.py,
choose_sentences), the decoupling's form (models/multi_instance.py), and twice SgMg's epochs, as a clip with all its
sentences is one place in an epoch here and several there. Weights of SgMg fit, as a start: --config.init=runs/ytvos.

With Video-Swin-B: configs/ytvos_fast.py:base. Eight clips of 5 frames with up to six sentences each want several
accelerators. Not yet run in full. It needs RoBERTa's vocab.json and merges.txt in data/roberta-base.
"""
from configs import common, ytvos


def get_config(mode='full'):
    """mode: see common.apply_mode."""
    config = ytvos.get_config()
    config.model.name = 'fast_sgmg'
    config.model.decoupling = 'residual'  # models/multi_instance.py: DECOUPLINGS
    config.epochs = 18.0
    config.optimizer.drop_epochs = (12, 16)
    config.data.sentences = 6
    config.evaluation.sentences = 12  # no video of the validation and test splits has more
    return common.apply_mode(config, mode)
