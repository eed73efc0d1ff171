"""The authors' release's results with seeded random weights; see sgmg_jax/parity/compare.py."""

import json
import pathlib

import numpy as np

from sgmg_jax.models import roberta, sgmg, soc, video_swin

# The models of the cases whose name contains tiny.
TINY = sgmg.SgMg(
    backbone=video_swin.Size(24, (2, 2, 2, 2), (3, 6, 12, 24)),
    text_encoder=roberta.Size(vocabulary=120, channels=48, layers=2, heads=4, mlp=96, positions=40),
    hidden=64,
    mlp=128,
    encoder_layers=2,
    decoder_layers=3,
    dropout=0.0,
    text_dropout=0.0,
    drop_path=0.0,
)
TINY_SOC = soc.SOC(
    backbone=TINY.backbone,
    text_encoder=TINY.text_encoder,
    hidden=128,
    queries=7,
    mlp=128,
    encoder_layers=2,
    cluster_decoder_layers=2,
    cluster_mlp=160,
    dropout=0.0,
    text_dropout=0.0,
    drop_path=0.0,
)
FOLDER = pathlib.Path(__file__).parent / 'goldens'


def load(case):
    """(arrays by name, meaning by name)."""
    with np.load(FOLDER / f'{case}.npz') as arrays:
        return dict(arrays), read_json(case)


def read_json(case):
    return json.loads((FOLDER / f'{case}.json').read_text())


def official_shapes(manifest='manifest_sgmg_tiny'):
    """Names and shapes of the float tensors in the tiny configuration's state dict."""
    manifest = read_json(manifest)
    return {name: shape for name, (shape, dtype) in manifest.items() if dtype == 'float32'}
