"""Ref-YouTube-VOS with Video-Swin-T and RoBERTa-base.

    python -m datasets.build ref_youtube_vos --raw=refer_youtube_vos --out=data/tfds
    python train.py    --config=configs/ytvos.py --workdir=runs/ytvos
    python evaluate.py --config=configs/ytvos.py --workdir=runs/ytvos     # leaderboard files

The released optimiser settings, six epochs of about 9,000 steps of 8 clips, from random weights: the text
encoder is trained as well, since a frozen random one would be of no use. To start from pretrained encoders
instead, which the paper's scores need, give their files and freeze the text encoder as the authors do:

    --config.init="('swin_tiny_kinetics.pth', 'roberta-base/model.safetensors')"
    --config.optimizer.freeze="('text_backbone/.*',)"

Eight clips want several devices: `python -m sgmg_jax.benchmarks.step --remat` tells what one clip takes. Not yet
run in full. It needs RoBERTa's vocab.json and merges.txt in data/roberta-base (roberta-base on Hugging Face).
"""
from configs import common


def get_config(mode='full'):
    """mode: 'full', or 'smoke' for two small steps that only show that everything runs."""
    config = common.get_config()
    config.steps = 54_000
    config.optimizer.update(drop_steps=(27_000, 45_000), freeze=())
    config.model.remat = True
    config.data.tokenizer = 'data/roberta-base'
    # The public split without ground truth cannot be scored while training: hold out the last tenth of train.
    config.data.update(train_split='train[:90%]', valid_split='train[90%:]')
    config.evaluation.videos = 50
    if mode == 'smoke':
        config.update(steps=2, log_every=1, eval_every=2, checkpoint_every=1)
        config.data.update(batch_size=1, num_frames=2, frame_size=(160, 160), workers=0)
        config.data.augmentation.update(scales=(144,), max_size=160, crop_probability=0.0)
        config.evaluation.update(short_side=144, videos=1)
    return config
