"""The procedural world for Fast SgMg: up to four sentences per clip in one pass.

After `make learn`, which writes the data:

    python train.py    --config=configs/synthetic_fast.py --workdir=runs/learn_fast
    python evaluate.py --config=configs/synthetic_fast.py --workdir=runs/learn_fast --config.evaluation.sentences=2

The last command evaluates it with two sentences at a time.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import synthetic


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: 'full', or 'smoke' for two small steps that check that everything runs."""
    config = synthetic.get_config(mode)
    config.model.name = 'fast_sgmg'
    config.model.decoupling = 'residual'  # models/multi_instance.py: DECOUPLINGS
    config.data.sentences = 4
    config.evaluation.sentences = 4
    return config
