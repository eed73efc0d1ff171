"""The procedural world for SOC, with as many steps as SgMg.

After `make learn`, which writes the data:

    python train.py    --config=configs/synthetic_soc.py --workdir=runs/learn_soc
    python evaluate.py --config=configs/synthetic_soc.py --workdir=runs/learn_soc
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import synthetic, ytvos_soc


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: 'full', or 'smoke' for two small steps that check that everything runs."""
    config, sgmg = ytvos_soc.get_config(), synthetic.get_config(mode)
    fields = config.model.copy_and_resolve_references()
    fields.update({name: value for name, value in sgmg.model.items() if name in fields and name != 'name'})
    fields.update(
        hidden=128, cluster_encoder_layers=2, cluster_decoder_layers=2, cluster_mlp=192, inference_layer='last'
    )  # 'first' suits the released weights
    sgmg.model = fields
    sgmg.loss = config.loss
    sgmg.data.consecutive = True
    return sgmg
