"""A small SgMg learns the procedural world from scratch on two CPU cores.

    make learn

or, step by step,

    python -m sgmg_jax.synthetic --out=runs/learn/raw --train=1200 --valid=40 --size=112
    python -m datasets.build ref_youtube_vos --raw=runs/learn/raw --out=runs/learn/records
    python train.py    --config=configs/synthetic.py --workdir=runs/learn
    python evaluate.py --config=configs/synthetic.py --workdir=runs/learn
    python evaluate.py --config=configs/synthetic.py --workdir=runs/learn --score_another_object
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: 'full', or 'smoke' for two small steps that check that everything runs."""
    config = common.get_config()
    config.steps = 1700
    config.log_every = 20
    config.eval_every = 300
    config.checkpoint_every = 100

    config.model.update(
        backbone='demo',
        text_encoder='demo',
        hidden=64,
        levels=3,
        heads=4,
        encoder_layers=2,
        decoder_layers=2,
        mlp=192,
        dropout=0.0,
        text_dropout=0.0,
        drop_path=0.0,
        # With several queries, each first learns to segment one object, and the model learns to pick the right one
        # much later. A single query has to use the sentence from the start.
        queries=1,
    )
    config.data.update(
        records=('runs/learn/records',),
        num_frames=2,
        frame_size=(112, 112),
        text_length=24,
        batch_size=16,
        workers=0,
        # "moving left" would be false in a reversed clip.
        reverse_probability=0.0,
    )
    config.data.augmentation.update(
        scales=(112,), max_size=112, crop_probability=0.0, flip_probability=0.5, order=('select', 'flip')
    )
    config.evaluation.update(short_side=112, videos=10)
    config.optimizer.update(
        batch_size=16, learning_rate=6e-4, groups=(), freeze=(), clip_norm=1.0, warmup_steps=50, drop_steps=(1400,)
    )
    if 'smoke' in common.split_mode(mode, ('full', 'smoke')):
        config.update(steps=2, log_every=1, eval_every=2, checkpoint_every=1)
        config.data.batch_size = 2
        config.evaluation.videos = 1
    return config
