"""The procedural world with the sentences of MeViS: of one object, of several ("the red circles"), of none.

    python -m sgmg_jax.synthetic --layout=mevis --out=runs/learn_mevis/raw --train=6000 --valid=40 --size=112
    python -m datasets.build mevis --raw=runs/learn_mevis/raw --out=runs/learn_mevis/records
    python train.py    --config=configs/synthetic_mevis.py --workdir=runs/learn_mevis
    python evaluate.py --config=configs/synthetic_mevis.py --workdir=runs/learn_mevis --checkpoint=latest \\
        --config.evaluation.split='train[95%:]' --try_thresholds
    python evaluate.py --config=configs/synthetic_mevis.py --workdir=runs/learn_mevis --checkpoint=latest

It starts from the model in the package, which knows the words and motions, but always finds one object. Sentences that
refer to nothing have empty masks if their score stays below config.evaluation.threshold. The first evaluation is how it
was chosen: on clips that nothing was learned from, and that no score reports.
"""

import importlib.resources

from ml_collections import ConfigDict

from sgmg_jax.configs import common, demo, mevis


def get_config(mode: str = 'full') -> ConfigDict:
    """mode: 'full', or 'smoke' for two small steps that check that everything runs."""
    smoke = 'smoke' in common.split_mode(mode, ('full', 'smoke'))
    config = mevis.on_mevis(demo.get_config('smoke' if smoke else 'clips'))
    config.data.update(
        records=('runs/learn_mevis/records/mevis',),
        train_split='train[:95%]',
        valid_split='train[95%:]',  # the checkpoint is chosen on clips that no score reports
    )
    config.evaluation.update(records=(), threshold=0.47)
    if smoke:  # from nothing, so that it also runs with other sizes of the model
        return config
    config.init = (str(importlib.resources.files('sgmg_jax') / 'pretrained' / 'demo'),)
    config.update(steps=1200, eval_every=300, ema_decay=0.99)
    # What is new here is mostly whether anything is meant, which scores tell.
    config.loss.update(mask_scale=1.0, class_scale=20.0)
    config.optimizer.update(learning_rate=8e-4, warmup_steps=50, drop_steps=(900,))
    return config
