"""SOC on Ref-YouTube-VOS and RefCOCO/+/g together: each picture becomes a clip of eight by warping it.

    python train.py    --config=configs/joint_soc.py --workdir=runs/joint_soc \\
        --config.init="('swin_tiny_kinetics.pth', 'roberta-base/model.safetensors')"
    python evaluate.py --config=configs/joint_soc.py --workdir=runs/joint_soc

As in the release's yaml file: thirty epochs with a drop at 20, the text encoder trained at 5e-6 (its README freezes
it). See configs/joint.py for how the data sets are mixed. Pictures and videos are padded to one square. The norms of
the feature pyramid see this padding in training but not in evaluation; the release does not pad. Video-Swin-B:
configs/joint_soc.py:base. Not yet run in full.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import common, joint, ytvos_soc


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: see common.apply_mode."""
    config = ytvos_soc.get_config()
    data = joint.get_config().data
    config.data.update(
        records=data.records, train_split=data.train_split, valid_split=data.valid_split, frame_size=data.frame_size
    )
    config.evaluation.records = data.records[:1]
    config.optimizer.update(groups=(('video_encoder/.*', 1e-5), ('text_backbone/.*', 5e-6)), freeze=())
    return common.apply_mode(config, mode)
