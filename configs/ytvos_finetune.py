"""Ref-YouTube-VOS after pretraining on RefCOCO (configs/refcoco.py): the paper's best numbers.

    python train.py    --config=configs/ytvos_finetune.py --workdir=runs/ytvos --config.init=runs/refcoco
    python evaluate.py --config=configs/ytvos_finetune.py --workdir=runs/ytvos

--config.init may also be the authors' pretrained .pth. As in the release, the class heads are reinitialised and the
text encoder is frozen. Six epochs with drops at 3 and 5; learning rates 2.5e-5 for the backbone and 5e-5 for the rest.
The release's defaults are twice as high, and it scales them by GPUs / 8 with pretrained weights: these are the rates
for four GPUs. Video-Swin-B: configs/ytvos_finetune.py:base. The paper reports J&F 62.0 with Video-Swin-T and 65.7 with
Video-Swin-B. For hardware and tokenizer see configs/ytvos.py. Not yet run in full.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common, ytvos


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode."""
    config = ytvos.get_config()
    config.epochs = 6.0
    config.init_skip = 'class_heads_.*'
    config.optimizer.update(learning_rate=5e-5, groups=(('video_encoder/.*', 2.5e-5),), drop_epochs=(3, 5))
    return common.apply_mode(config, mode)
