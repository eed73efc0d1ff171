"""Numbers of the authors' release on seeded random weights; see sgmg_jax/convert/parity.py."""
import json
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / 'goldens'


def load(case):
    """(arrays by name, meaning by name)."""
    with np.load(FOLDER / f'{case}.npz') as arrays:
        return dict(arrays), read_json(case)


def read_json(case):
    return json.loads((FOLDER / f'{case}.json').read_text())


def official_shapes():
    """Names and shapes of the tiny configuration's state dict, floating tensors only."""
    manifest = read_json('manifest_sgmg_tiny')
    return {name: shape for name, (shape, dtype) in manifest.items() if dtype == 'float32'}
