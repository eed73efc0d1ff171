"""Ref-YouTube-VOS from scratch: from encoders pretrained on Kinetics and on text, without RefCOCO.

    python -m datasets.build ref_youtube_vos --raw=refer_youtube_vos --out=data/tfds
    python train.py    --config=configs/ytvos.py --workdir=runs/ytvos \\
        --config.init="('swin_tiny_kinetics.pth', 'roberta-base/model.safetensors')"
    python evaluate.py --config=configs/ytvos.py --workdir=runs/ytvos     # leaderboard files

The 305 videos of the 2023 challenge's test phase: --config.evaluation.split=test, with the test archive unpacked before
the data set is built. With Video-Swin-B: configs/ytvos.py:base. The paper (Table 2, Video-Swin-T): J&F 58.9;
Ref-DAVIS17 with the same model (configs/davis.py) 56.7. Nine epochs with drops at 6 and 8; rates are the release's
defaults, which it scales by GPUs / 4, for the eight clips of a step here. The last tenth of the training videos is held
out, to choose the best checkpoint. Without --config.init both encoders are random, and the text encoder, frozen as the
authors have it, of no use: thaw it with --config.optimizer.freeze="()".

Eight clips of 5 frames want several accelerators, or one with much memory and `model.remat`, which is on here:
`python -m sgmg_jax.benchmarks.step --remat` tells what one clip takes. Not yet run in full. It needs RoBERTa's
vocab.json and merges.txt in data/roberta-base (roberta-base on Hugging Face).
"""
from configs import common


def get_config(mode='full'):
    """mode: see common.apply_mode."""
    config = common.get_config()
    config.epochs = 9.0
    config.optimizer.drop_epochs = (6, 8)
    config.model.remat = True
    config.data.tokenizer = 'data/roberta-base'
    # The public split without ground truth cannot be scored while training.
    config.data.update(train_split='train[:90%]', valid_split='train[90%:]')
    config.evaluation.videos = 50
    return common.apply_mode(config, mode)
