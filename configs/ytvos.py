"""Ref-YouTube-VOS without pretraining on RefCOCO, from encoders pretrained on Kinetics and on text.

    python -m datasets.build ref_youtube_vos --raw=refer_youtube_vos --out=data/tfds
    python train.py    --config=configs/ytvos.py --workdir=runs/ytvos \\
        --config.init="('swin_tiny_kinetics.pth', 'roberta-base/model.safetensors')"
    python evaluate.py --config=configs/ytvos.py --workdir=runs/ytvos     # leaderboard files

For the 305 videos of the 2023 challenge's test phase, unpack the test archive before building the data set and set
--config.evaluation.split=test. Video-Swin-B: configs/ytvos.py:base. The paper (Table 2, Video-Swin-T) reports J&F 58.9,
and 56.7 on Ref-DAVIS17 with the same model (configs/davis.py). Nine epochs with drops at 6 and 8. The learning rates
are the release's defaults, which it scales by GPUs / 4; here they are for eight clips per step. The last tenth of the
training videos is held out to choose the best checkpoint. Without --config.init both encoders are random, and the text
encoder is useless because it is frozen, as in the release: train it with --config.optimizer.freeze="()".

Eight clips of 5 frames need several accelerators, or one with much memory and `model.remat='blocks'`, as here.
`python -m sgmg_jax.benchmarks.step --remat=blocks` measures one clip. Training needs RoBERTa's vocab.json and
merges.txt in data/roberta-base (roberta-base on Hugging Face). Not yet run in full.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode."""
    config = common.get_config()
    config.epochs = 9.0
    config.optimizer.drop_epochs = (6, 8)
    config.model.remat = 'blocks'
    config.data.tokenizer = 'data/roberta-base'
    # The public validation split has no ground truth, so it cannot be scored during training.
    config.data.update(train_split='train[:90%]', valid_split='train[90%:]')
    config.evaluation.videos = 50
    return common.apply_mode(config, mode)
