"""Pretraining on the pictures of RefCOCO, RefCOCO+ and RefCOCOg, for Ref-YouTube-VOS and A2D-Sentences.

    for name in refcoco refcoco_plus refcocog; do python -m datasets.build $name --raw=coco --out=data/tfds; done
    python train.py    --config=configs/refcoco.py --workdir=runs/refcoco \\
        --config.init="('swin_tiny_kinetics.pth', 'roberta-base/model.safetensors')"
    python evaluate.py --config=configs/refcoco.py --workdir=runs/refcoco \\
        --config.evaluation.records="('data/tfds/refcoco_plus',)" --config.evaluation.split=testA

The three training splits are concatenated: about 321,000 sentences with one picture each, as clips of one frame,
without colour augmentation. Twelve epochs with drops at 8 and 10, as in the paper (eleven in the release's script).
Learning rates: 2.5e-6 for the text encoder, which is trained here, 1.25e-5 for the backbone, 2.5e-5 for the rest.
Video-Swin-B: configs/refcoco.py:base. The paper reports no score for this stage. A batch of eight should fit one
accelerator with 24 GB. Not yet run in full.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common

SETS = 'data/tfds/refcoco', 'data/tfds/refcoco_plus', 'data/tfds/refcocog'


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode."""
    config = common.get_config()
    config.epochs = 12.0
    config.optimizer.update(
        learning_rate=2.5e-5,
        groups=(('video_encoder/.*', 1.25e-5), ('text_backbone/.*', 2.5e-6)),
        freeze=(),
        drop_epochs=(8, 10),
    )
    config.data.update(
        records=SETS,
        train_split='train',
        valid_split='val',
        tokenizer='data/roberta-base',
        num_frames=1,
        frame_size=(800, 800),
        reverse_probability=0.0,
    )
    config.data.augmentation.update(
        order=('flip', 'select'),
        scales=tuple(range(480, 769, 32)),
        max_size=800,
        cropped_scales=(296, 328, 360, 392, 416, 448, 480, 512),
    )
    config.evaluation.update(protocol='refcoco', records=SETS[:1], split='val', max_side=640, clip_frames=1, videos=500)
    return common.apply_mode(config, mode)
