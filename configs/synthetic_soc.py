"""The demo's world for SOC, as many steps as SgMg has there.

After `make demo`, whose data it takes:

    python train.py    --config=configs/synthetic_soc.py --workdir=runs/demo_soc
    python evaluate.py --config=configs/synthetic_soc.py --workdir=runs/demo_soc
"""
from configs import synthetic, ytvos_soc


def get_config(mode='full'):
    """mode: 'full', or 'smoke' for two steps that only show that everything runs."""
    config, sgmg = ytvos_soc.get_config(), synthetic.get_config(mode)
    fields = config.model.copy_and_resolve_references()
    fields.update({name: value for name, value in sgmg.model.items() if name in fields and name != 'name'})
    fields.update(hidden=128, cluster_encoder_layers=2, cluster_decoder_layers=2, cluster_mlp=192,
                  inference_layer='last')  # the first is for the released weights
    sgmg.model = fields
    sgmg.loss = config.loss
    sgmg.data.consecutive = True
    return sgmg
