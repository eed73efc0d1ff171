"""A short training on the procedural world, for the tables of `python -m sgmg_jax.studies.tables`.

The command writes the world and runs this config with the switches of each row. By hand:

    python -m sgmg_jax.synthetic --out=runs/studies/world/raw --train=800 --valid=40 --size=96
    python -m datasets.build ref_youtube_vos --raw=runs/studies/world/raw --out=runs/studies/world/records
    python train.py    --config=configs/studies.py --workdir=runs/studies/full
    python evaluate.py --config=configs/studies.py --workdir=runs/studies/full

Frames have 96 pixels per side, so that a small object covers two or three tokens of stride 8 per side: with one label
per token, its contour, the arms of a cross and the hole of a ring are lost. In a quarter of the clips, sentences name a
relation across the frame. SgMg learns from single pictures, SOC from clips of four frames; sentences about motion can
be learned from neither in so short a time.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common, synthetic, synthetic_soc

MODES = 'full', 'soc', 'smoke'


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: words joined by commas: 'full' for SgMg, 'soc' for SOC, 'smoke' for two small steps that check that
    everything runs."""
    words = common.split_mode(mode, MODES)
    size = 'smoke' if 'smoke' in words else 'full'
    config = (synthetic_soc if 'soc' in words else synthetic).get_config(size)
    config.model.backbone = 'pocket'
    config.data.update(records=('runs/studies/world/records',), frame_size=(96, 96), num_frames=1, sentences=2)
    config.data.augmentation.update(scales=(96,), max_size=96)
    config.evaluation.update(short_side=96, clip_frames=8, videos=1)
    config.optimizer.groups = (('video_encoder/.*relative_position_bias', 6e-3),)
    if 'soc' in words:
        config.data.num_frames = 4
    if 'smoke' not in words:
        # Scored once, after the last step: every row has as many steps, and none chooses among its checkpoints.
        config.update(steps=500, log_every=50, eval_every=500, checkpoint_every=100, ema_decay=0.99)
        config.evaluation.sentences = 4
        config.data.batch_size = 4 if 'soc' in words else 16
        config.optimizer.update(
            batch_size=config.data.batch_size, learning_rate=8e-4, warmup_steps=50, drop_steps=(400,)
        )
    return config
