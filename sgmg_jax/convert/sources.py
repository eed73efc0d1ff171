"""Files with weights: which model a file is of, and its tensors under the names that names.py knows."""
import pathlib
import re
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sgmg_jax.convert import pth
from sgmg_jax.convert.names import ROBERTA, SOC_ROBERTA, SWIN, canonical_name

LARGEST = 2 ** 28  # numbers in a tensor; the largest there is has 2 ** 26
TIME_OFFSETS = 15  # 2 * 8 - 1: rows of a 2-D bias table are repeated for every distance in time


class Weights(NamedTuple):
    """kind: what the file is, in words; tensors: official name -> array; parts: the top-level
    parameters of ours that it must fill, None for all."""
    kind: str
    tensors: dict[str, np.ndarray]
    parts: tuple[str, ...] | None


def read(path):
    """A .pth (also .pt, .bin) of PyTorch or a .safetensors -> Weights.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or holds none of the models known here; lists some of its names.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file. Give a .pth or a .safetensors with weights.')
    if path.suffix == '.safetensors':
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise ValueError(f'{path}: not a whole safetensors file ({error}). Download or write it again.') from error
    else:
        tensors = pth.state_dict(path)
    try:
        return recognise(tensors)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def recognise(tensors):
    """Tensors of any of the known checkpoints -> Weights.

    * SgMg, or SOC, as released. Box heads are stored under two names; index tables, position ids and the weights of
      a loss are known and left out (spec: state dict).
    * Video Swin pretrained on Kinetics (`backbone.` before every name, a classifier after): the two
      frames of a patch are summed, since SgMg's patches are one frame deep.
    * Swin pretrained on images: a patch and a bias table are given a time axis.
    * RoBERTa of Hugging Face, with or without `roberta.` before every name.

    Raises:
        ValueError: for anything else, for a tensor of absurd size, and if the two copies of a box head differ.
    """
    tensors = {name.removeprefix('module.'): np.asarray(x) for name, x in tensors.items()}
    for name, x in tensors.items():
        if x.size > LARGEST:  # An expanded tensor says so much in a few bytes of its file.
            raise ValueError(f'{name} has shape {x.shape}, more numbers than any of these models.')
    if 'voc.query_embed.weight' in tensors:
        tensors = {re.sub(f'^{re.escape(SOC_ROBERTA)}', ROBERTA, name): x for name, x in tensors.items()}
        return Weights('SOC', _without_copies(tensors), None)
    if 'query_embed.weight' in tensors:
        return Weights('SgMg', _without_copies(tensors), None)
    if any(name.endswith('embeddings.word_embeddings.weight') for name in tensors):
        names = {name: name.removeprefix('roberta.') for name in tensors}
        kept = {ROBERTA + short: tensors[name] for name, short in names.items()
                if not short.startswith('lm_head.') and not short.endswith('position_ids')}
        return Weights('RoBERTa', kept, ('text_backbone',))
    swin = {name.removeprefix('backbone.'): x for name, x in tensors.items()}
    patch = swin.get('patch_embed.proj.weight')
    if patch is not None and patch.ndim in (4, 5):
        kept = {}
        for name, x in swin.items():
            if not re.match(r'(norm|head|cls_head)\.', name) and not name.endswith(('_index', 'attn_mask')):
                kept[SWIN + re.sub(r'^layers\.(\d)\.downsample\.', r'downsamples.\1.', name)] = _one_frame_deep(
                    name, x, image=patch.ndim == 4)
        kind = 'Swin of images, inflated' if patch.ndim == 4 else 'Video Swin, patches summed over time'
        return Weights(kind, kept, ('video_encoder',))
    raise ValueError(f'weights of no model known here (SgMg, SOC, Video Swin, Swin, RoBERTa). '
                     f'It has {len(tensors)} tensors: {", ".join(sorted(tensors)[:5])} ...')


def _without_copies(tensors):
    kept, names = {}, {}
    for name, x in tensors.items():
        if name.endswith(('relative_position_index', 'embeddings.position_ids')):
            continue
        canonical = canonical_name(name)
        if canonical in kept and not np.array_equal(kept[canonical], x):
            raise ValueError(f'{name} differs from {names[canonical]}. In the release these are one tensor under two '
                             'names; this checkpoint is of another model or was damaged.')
        kept[canonical], names[canonical] = x, name
    return kept


def _one_frame_deep(name, x, image):
    if name == 'patch_embed.proj.weight':
        return x[:, :, None] if image else x.sum(axis=2, keepdims=True)
    if image and name.endswith('relative_position_bias_table'):
        return np.tile(x, (TIME_OFFSETS, 1))
    return x
