"""A2D-Sentences after pretraining on RefCOCO (configs/refcoco.py).

    python -m datasets.build a2d_sentences --raw=a2d_sentences --out=data/tfds
    python train.py    --config=configs/a2d.py --workdir=runs/a2d --config.init=runs/refcoco
    python evaluate.py --config=configs/a2d.py --workdir=runs/a2d

A clip is an annotated frame with four around it as context for the backbone; all queries of that frame are scored.
Rates and class heads as in configs/ytvos_finetune.py; that its six epochs with drops at 3 and 5 hold for A2D-Sentences
as well is an assumption. The best checkpoint is chosen on a twentieth of the training videos, never on test. With
Video-Swin-B: configs/a2d.py:base. The paper: mAP 56.1 with Video-Swin-T; 58.5 with Video-Swin-B (overall IoU 79.9,
mean IoU 72.0). Hardware and tokenizer as configs/ytvos.py says. Not yet run in full.
"""
from configs import common, ytvos_finetune


def get_config(mode='full'):
    """mode: see common.apply_mode."""
    config = ytvos_finetune.get_config()
    config.data.update(
        records=('data/tfds/a2d_sentences',), train_split='train[:95%]', valid_split='train[95%:]',
        reverse_probability=0.0)
    config.data.augmentation.order = ('flip', 'photometric', 'select')
    config.evaluation.update(protocol='a2d', split='test', max_side=640, clip_frames=5, videos=100)
    return common.apply_mode(config, mode)
