"""The demo's world for Fast SgMg: up to four sentences of a clip in one pass.

After `make demo`, whose data it takes:

    python train.py    --config=configs/synthetic_fast.py --workdir=runs/demo_fast
    python evaluate.py --config=configs/synthetic_fast.py --workdir=runs/demo_fast --config.evaluation.sentences=2

evaluates it with two sentences of a clip asked together.
"""
from configs import synthetic


def get_config(mode='full'):
    """mode: 'full', or 'smoke' for two steps that only show that everything runs."""
    config = synthetic.get_config(mode)
    config.model.name = 'fast_sgmg'
    config.model.decoupling = 'residual'  # models/multi_instance.py: DECOUPLINGS
    config.data.sentences = 4
    config.evaluation.sentences = 4
    return config
