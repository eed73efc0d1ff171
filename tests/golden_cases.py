"""Numbers of the authors' release on seeded random weights, and those weights.

A case is an npz with `in/...`, `out/...`, `grad/...`, and a JSON beside it. The weights follow
from the official tensor's name and a seed.
"""
import json
import pathlib
import zlib

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


def fill(name, shape, seed=0):
    """The official tensor `name`, as the goldens' weights were made."""
    name = name.replace('transformer.decoder.bbox_embed.', 'bbox_embed.')
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + seed))
    x = generator.standard_normal(shape, dtype=np.float32)
    root = np.sqrt(np.prod(shape[1:]))

    def scale():
        if name.endswith('relative_position_bias_table'):
            return 0.5
        if name.endswith('sampling_offsets.bias'):
            return 1
        if name.endswith('sampling_offsets.weight'):
            return 0.5 / root
        if name.endswith(('word_embeddings.weight', 'position_embeddings.weight', 'token_type_embeddings.weight')):
            return 0.5
        if name.endswith(('query_embed.weight', 'level_embed')):
            return 1
        if name.startswith('controller.') and '.layers.2.' in name:
            return 0.05 / root if len(shape) > 1 else 0.05
        if len(shape) >= 2:
            return 1 / root
        return 0.1

    x = np.float32(scale()) * x
    return 1 + x if len(shape) == 1 and name.endswith('weight') else x
