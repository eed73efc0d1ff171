"""The model that comes with the package: a small SgMg that learns the procedural world, motion included.

    python -m sgmg_jax.synthetic --out=runs/box/raw --train=4000 --valid=40 --size=112
    python -m datasets.build ref_youtube_vos --raw=runs/box/raw --out=runs/box/records
    python train.py --config=configs/demo.py --workdir=runs/box
    python evaluate.py --config=configs/demo.py --workdir=runs/box
    python -m sgmg_jax.convert from-run runs/box --out=models/demo --float16

configs/synthetic.py learns from pairs of frames, which hardly show motion; this one from four frames in a row, with two
sentences for each clip. Attention knows time only by its relative position bias. Adam moves a parameter by at most the
learning rate in a step, so at the usual rate that bias stays small for thousands of steps: it has a rate of its own.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import synthetic


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: as of configs/synthetic.py."""
    config = synthetic.get_config(mode)
    config.data.update(
        records=('runs/box/records',),
        num_frames=4,
        sentences=2,
        consecutive=True,
        train_split='train[:99%]',
        valid_split='train[99%:]',  # the checkpoint is chosen on clips that no score reports
    )
    config.evaluation.clip_frames = 4  # longer films are segmented in clips like those of the training
    config.optimizer.groups = (('video_encoder/.*relative_position_bias', 6e-3),)
    if mode == 'full':
        config.update(steps=2400, eval_every=400, ema_decay=0.998)
        config.data.batch_size = 8
        config.optimizer.update(batch_size=8, warmup_steps=100, drop_steps=(2000,))
        config.evaluation.videos = 20
    return config
