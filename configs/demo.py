"""The model that comes with the package: a small SgMg that learns the procedural world.

    python -m sgmg_jax.synthetic --out=runs/box/raw --train=4000 --valid=40 --size=112
    python -m sgmg_jax.synthetic --out=runs/box_motion/raw --train=2500 --valid=1 --size=112 --kind=motion --seed=1
    python -m sgmg_jax.synthetic --out=runs/box_alike/raw --train=2500 --valid=1 --size=112 --kind=alike --seed=2
    for folder in box box_motion box_alike
    do python -m datasets.build ref_youtube_vos --raw=runs/$folder/raw --out=runs/$folder/records; done
    python train.py --config=configs/demo.py:motion --workdir=runs/box_first
    python train.py --config=configs/demo.py:clips --config.init=runs/box_first --workdir=runs/box_second
    python train.py --config=configs/demo.py --config.init=runs/box_second --workdir=runs/box
    python evaluate.py --config=configs/demo.py --workdir=runs/box
    python -m sgmg_jax.convert from-run runs/box --out=models/demo --float16

First it learns motion, from clips whose objects all look alike. What a single frame shows is easier to learn: begun
with clips of all kinds, motion stayed out of the features. Then it learns everything else, half of the clips being
about motion, which it keeps: from clips of four frames, twice as many per step, and last from whole clips.

The numbers of steps suit seed 0, the model in the package. The loss stays flat at first and then falls; how late
differs from seed to seed. If J&F of the validation is not near 80 at the end of the first or second training, run the
same command with more steps, such as --config.steps=1200, before the next one: seed 2 went on from step 1,100 of the
first and step 2,000 of the second.

Attention knows place and time only by its relative position bias. Adam moves a parameter by at most the learning rate
in a step, so at the usual rate that bias stays small for thousands of steps: it has a rate of its own.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common, synthetic

MODES = 'full', 'motion', 'clips', 'smoke'


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: 'full'; 'motion' or 'clips' for the first or second training before it; or 'smoke' for two small steps that
    check that everything runs."""
    words = common.split_mode(mode, MODES)
    config = synthetic.get_config('smoke' if 'smoke' in words else 'full')
    config.model.backbone = 'pocket'
    config.data.update(
        records=('runs/box/records',),
        num_frames=8,  # whole clips
        consecutive=True,
        train_split='train[:99%]',
        valid_split='train[99%:]',  # the checkpoint is chosen on clips that no score reports
    )
    config.evaluation.clip_frames = 8  # longer films are segmented in clips like those of the training
    config.loss.mask_scale = 8.0  # the number of frames: the release's masks weigh less, the longer the clip is
    config.optimizer.groups = (('video_encoder/.*relative_position_bias', 6e-3),)
    if 'smoke' in words:
        return config
    config.update(steps=600, eval_every=100, ema_decay=0.99)
    config.data.update(records=('runs/box/records', 'runs/box_motion/records'), batch_size=4, sentences=4)
    config.optimizer.update(batch_size=4, learning_rate=4e-4, warmup_steps=50, drop_steps=(400,))
    config.evaluation.update(records=('runs/box/records',), videos=20)
    if 'motion' in words:
        config.data.records = config.evaluation.records = ('runs/box_alike/records',)
        config.ema_decay = 0.98
        config.optimizer.update(learning_rate=1.2e-3, warmup_steps=100, drop_steps=())
    if 'clips' in words:
        config.update(steps=1400, eval_every=200, ema_decay=0.995)
        config.data.update(num_frames=4, batch_size=8)
        config.optimizer.update(batch_size=8, learning_rate=1.2e-3, warmup_steps=100, drop_steps=())
        config.loss.mask_scale = 4.0
    return config
