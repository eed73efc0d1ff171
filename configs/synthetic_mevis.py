"""The demo's world with the sentences of MeViS: of one object, of several ("the red circles"), of none.

    python -m sgmg_jax.synthetic --layout=mevis --out=runs/learn_mevis/raw --train=1200 --valid=40 --size=112
    python -m datasets.build mevis --raw=runs/learn_mevis/raw --out=runs/learn_mevis/records
    python train.py    --config=configs/synthetic_mevis.py --workdir=runs/learn_mevis
    python evaluate.py --config=configs/synthetic_mevis.py --workdir=runs/learn_mevis

Sentences that refer to nothing have empty masks if their score stays below config.evaluation.threshold; choose it on
the clips of --config.evaluation.split='train[95%:]', which nothing was learned from. Not yet run in full.
"""

from ml_collections import ConfigDict

from sgmg_jax.configs import mevis, synthetic


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: 'full', or 'smoke' for two small steps that check that everything runs."""
    config = mevis.on_mevis(synthetic.get_config(mode))
    config.data.update(
        records=('runs/learn_mevis/records/mevis',),
        train_split='train[:95%]',
        valid_split='train[95%:]',  # the checkpoint is chosen on clips that no score reports
    )
    config.evaluation.threshold = 0.5
    return config
