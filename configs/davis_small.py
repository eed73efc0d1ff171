"""A small SgMg from scratch on a few real clips: a check that the pipeline fits real video.

    python -m datasets.build ref_davis --raw=refer_davis --out=data/davis
    python train.py    --config=configs/davis_small.py --workdir=runs/davis_small
    python evaluate.py --config=configs/davis_small.py --workdir=runs/davis_small

It trains and evaluates on the same `valid` videos, so the score shows that the model fits them and nothing about new
videos. For a few videos of Ref-DAVIS17, or any data in the layout of Ref-YouTube-VOS.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: 'full', or 'smoke' for two small steps that check that everything runs."""
    config = common.get_config()
    config.steps = 300
    config.log_every = 20
    config.eval_every = 300
    config.checkpoint_every = 100
    config.model.update(
        backbone='demo',
        text_encoder='demo',
        hidden=64,
        queries=1,
        levels=4,
        heads=4,
        encoder_layers=2,
        decoder_layers=2,
        mlp=128,
        dropout=0.0,
        text_dropout=0.0,
        drop_path=0.0,
    )
    config.data.update(
        records=('data/davis',),
        train_split='valid',
        valid_split='valid',
        num_frames=3,
        frame_size=(160, 288),
        text_length=32,
        batch_size=4,
        workers=0,
        reverse_probability=0.0,
    )
    config.data.augmentation.update(
        scales=(144, 152, 160), max_size=288, crop_probability=0.0, order=('select', 'flip')
    )
    config.evaluation.update(short_side=160, clip_frames=24)
    config.optimizer.update(
        batch_size=4, learning_rate=6e-4, groups=(), freeze=(), clip_norm=1.0, warmup_steps=25, drop_steps=(240,)
    )
    if 'smoke' in common.split_mode(mode, ('full', 'smoke')):
        config.update(steps=2, log_every=1, eval_every=2, checkpoint_every=1)
        config.data.batch_size = 1
        config.evaluation.videos = 1
    return config
