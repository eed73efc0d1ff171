"""SOC on A2D-Sentences after pretraining on RefCOCO (configs/refcoco_soc.py).

    python -m datasets.build a2d_sentences --raw=a2d_sentences --out=data/tfds
    python train.py    --config=configs/a2d_soc.py --workdir=runs/a2d_soc --config.init=runs/refcoco_soc
    python evaluate.py --config=configs/a2d_soc.py --workdir=runs/a2d_soc

A clip is an annotated frame, four frames before it and three after it; all queries of that frame are scored. As in the
release's script and yaml file: twenty epochs without a drop, half the usual learning rates, short side 320. (Its README
gives rates of 3e-5, 3e-6 and, for the text encoder, 1e-6.) Clips are padded to a fixed size; the release does not pad.
The best checkpoint is chosen on a twentieth of the training videos, never on test. Video-Swin-B:
configs/a2d_soc.py:base. Not yet run in full.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common, ytvos_finetune_soc


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode."""
    config = ytvos_finetune_soc.get_config()
    config.data.update(
        records=('data/tfds/a2d_sentences',),
        train_split='train[:95%]',
        valid_split='train[95%:]',
        frame_size=(320, 576),
    )
    config.data.augmentation.update(scales=(320,), max_size=576)
    config.evaluation.update(protocol='a2d', split='test', short_side=320, max_side=576, clip_frames=8, videos=100)
    config.optimizer.update(learning_rate=5e-5, groups=(('video_encoder/.*', 5e-6),), drop_epochs=())
    return common.apply_mode(config, mode)
