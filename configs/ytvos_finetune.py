"""Ref-YouTube-VOS after pretraining on RefCOCO (configs/refcoco.py): the paper's best numbers.

    python train.py    --config=configs/ytvos_finetune.py --workdir=runs/ytvos --config.init=runs/refcoco
    python evaluate.py --config=configs/ytvos_finetune.py --workdir=runs/ytvos

--config.init may also be the authors' pretrained .pth. As they do, the class heads start anew and the text encoder is
frozen; six epochs with drops at 3 and 5, rates 2.5e-5 for the backbone and 5e-5 for the rest. The release scales its
defaults, twice as much, by the number of GPUs: by GPUs / 8 with pretrained weights, so these are the rates of four.
With Video-Swin-B: configs/ytvos_finetune.py:base. The paper: J&F 62.0 with Video-Swin-T, 65.7 with Video-Swin-B.
Hardware and tokenizer as configs/ytvos.py says. Not yet run in full.
"""
from configs import common, ytvos


def get_config(mode='full'):
    """mode: see common.apply_mode."""
    config = ytvos.get_config()
    config.epochs = 6.0
    config.init_skip = 'class_heads_.*'
    config.optimizer.update(learning_rate=5e-5, groups=(('video_encoder/.*', 2.5e-5),), drop_epochs=(3, 5))
    return common.apply_mode(config, mode)
