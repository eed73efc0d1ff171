"""SOC on A2D-Sentences after pretraining on RefCOCO (configs/refcoco_soc.py).

    python -m datasets.build a2d_sentences --raw=a2d_sentences --out=data/tfds
    python train.py    --config=configs/a2d_soc.py --workdir=runs/a2d_soc --config.init=runs/refcoco_soc
    python evaluate.py --config=configs/a2d_soc.py --workdir=runs/a2d_soc

A clip is an annotated frame with four before and three after it; all queries of that frame are scored. Twenty epochs
without a drop, half of the usual rates, short side 320, as the release's script and yaml file have it (its README:
rates of 3e-5, 3e-6 and, for the text encoder, 1e-6). Narrower clips are padded to one size, where the release pads
nothing. The best checkpoint is chosen on a twentieth of the training videos, never on test. With Video-Swin-B:
configs/a2d_soc.py:base. Not yet run in full.
"""
from configs import common, ytvos_finetune_soc


def get_config(mode='full'):
    """mode: see common.apply_mode."""
    config = ytvos_finetune_soc.get_config()
    config.data.update(
        records=('data/tfds/a2d_sentences',), train_split='train[:95%]', valid_split='train[95%:]',
        frame_size=(320, 576))
    config.data.augmentation.update(scales=(320,), max_size=576)
    config.evaluation.update(protocol='a2d', split='test', short_side=320, max_side=576, clip_frames=8, videos=100)
    config.optimizer.update(learning_rate=5e-5, groups=(('video_encoder/.*', 5e-6),), drop_epochs=())
    return common.apply_mode(config, mode)
