"""A2D-Sentences after pretraining on RefCOCO (configs/refcoco.py).

    python -m datasets.build a2d_sentences --raw=a2d_sentences --out=data/tfds
    python train.py    --config=configs/a2d.py --workdir=runs/a2d --config.init=runs/refcoco
    python evaluate.py --config=configs/a2d.py --workdir=runs/a2d

A clip is an annotated frame and four frames around it as context for the backbone; all queries of that frame are
scored. Learning rates and class heads are as in configs/ytvos_finetune.py. We assume that its six epochs with drops at
3 and 5 also suit A2D-Sentences. The best checkpoint is chosen on a twentieth of the training videos, never on test.
Video-Swin-B: configs/a2d.py:base. The paper reports mAP 56.1 with Video-Swin-T and 58.5 with Video-Swin-B (overall IoU
79.9, mean IoU 72.0). For hardware and tokenizer see configs/ytvos.py. Not yet run in full.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common, ytvos_finetune


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode."""
    config = ytvos_finetune.get_config()
    config.data.update(
        records=('data/tfds/a2d_sentences',),
        train_split='train[:95%]',
        valid_split='train[95%:]',
        reverse_probability=0.0,
    )
    config.data.augmentation.order = ('flip', 'photometric', 'select')
    config.evaluation.update(protocol='a2d', split='test', max_side=640, clip_frames=5, videos=100)
    return common.apply_mode(config, mode)
