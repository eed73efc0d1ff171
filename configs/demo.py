"""The model that comes with the package: a small SgMg that learns the procedural world.

    python -m sgmg_jax.synthetic --out=runs/box/raw --train=4000 --valid=40 --size=112
    python -m datasets.build ref_youtube_vos --raw=runs/box/raw --out=runs/box/records
    python train.py --config=configs/demo.py:pictures --workdir=runs/box_pictures
    python train.py --config=configs/demo.py --config.init=runs/box_pictures --workdir=runs/box
    python evaluate.py --config=configs/demo.py --workdir=runs/box
    python -m sgmg_jax.convert from-run runs/box --out=models/demo --float16

As the released models, it first learns from single pictures, which cost little: in each step 64 sentences about 32 of
them. Then it learns from whole clips. Attention knows place and time only by its relative position bias. Adam moves a
parameter by at most the learning rate in a step, so at the usual rate that bias stays small for thousands of steps: it
has a rate of its own.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common, synthetic

MODES = 'full', 'pictures', 'smoke'


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: 'full'; 'pictures' for the training before it; or 'smoke' for two small steps that check that everything
    runs."""
    words = common.split_mode(mode, MODES)
    config = synthetic.get_config('smoke' if 'smoke' in words else 'full')
    config.model.backbone = 'pocket'
    config.data.update(
        records=('runs/box/records',),
        num_frames=8,  # whole clips
        sentences=2,
        consecutive=True,
        train_split='train[:99%]',
        valid_split='train[99%:]',  # the checkpoint is chosen on clips that no score reports
    )
    config.evaluation.clip_frames = 8  # longer films are segmented in clips like those of the training
    config.optimizer.groups = (('video_encoder/.*relative_position_bias', 6e-3),)
    if 'smoke' in words:
        return config
    config.update(steps=400, eval_every=100, ema_decay=0.99)
    config.data.batch_size = 4
    config.optimizer.update(batch_size=4, learning_rate=2e-4, warmup_steps=50, drop_steps=(250,))
    config.evaluation.videos = 20
    if 'pictures' in words:
        config.update(steps=3200, eval_every=300, ema_decay=0.998)
        config.data.update(num_frames=1, batch_size=32, consecutive=False)
        config.optimizer.update(batch_size=32, learning_rate=1.2e-3, warmup_steps=100, drop_steps=())
        config.evaluation.update(clip_frames=1, videos=10)
    return config
