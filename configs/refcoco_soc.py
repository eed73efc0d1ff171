"""SOC's pretraining on the pictures of RefCOCO, RefCOCO+ and RefCOCOg.

    for name in refcoco refcoco_plus refcocog; do python -m datasets.build $name --raw=coco --out=data/tfds; done
    python train.py    --config=configs/refcoco_soc.py --workdir=runs/refcoco_soc \\
        --config.init="('swin_tiny_kinetics.pth', 'roberta-base/model.safetensors')"
    python evaluate.py --config=configs/refcoco_soc.py --workdir=runs/refcoco_soc

As in the release: thirty epochs with drops at 15 and 20, batches of 64 pictures, the text encoder trained at 5e-6. On
few devices set --config.accumulate=8. Video-Swin-B: configs/refcoco_soc.py:base. Not yet run in full.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common, refcoco, ytvos_soc


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode."""
    config = ytvos_soc.get_config()
    config.epochs = 30.0
    config.data.update(
        records=refcoco.SETS, train_split='train', valid_split='val', num_frames=1, frame_size=(640, 640), batch_size=64
    )
    config.data.augmentation.flip_probability = 0.5
    config.evaluation.update(protocol='refcoco', records=refcoco.SETS[:1], split='val', clip_frames=1, videos=500)
    config.optimizer.update(
        batch_size=64, groups=(('video_encoder/.*', 1e-5), ('text_backbone/.*', 5e-6)), freeze=(), drop_epochs=(15, 20)
    )
    return common.apply_mode(config, mode)
