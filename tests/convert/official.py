"""Whole state dicts by the names of the releases, in small, and the files they lie in."""

import functools

import golden_cases
import numpy as np
from safetensors.numpy import save_file

from sgmg_jax.convert import sources
from sgmg_jax.parity import cases
from sgmg_jax.systems import parameter_shapes

shapes_of = functools.cache(parameter_shapes)


@functools.cache
def sgmg():
    """Of SgMg, buffers and both names of the box heads included. Not to be changed."""
    tensors = {name: cases.fill(name, shape) for name, shape in golden_cases.official_shapes().items()}
    tensors |= {f'transformer.decoder.{name}': x for name, x in tensors.items() if name.startswith('bbox_embed.')}
    return _with_buffers(tensors) | {sources.ROBERTA + 'embeddings.position_ids': np.arange(40)[None]}


@functools.cache
def soc():
    """Of SOC, with its buffers. Not to be changed."""
    tensors = {
        name: cases.fill(name, shape, spreads=cases.SOC_SPREADS)
        for name, shape in golden_cases.official_shapes('soc/manifest_soc_tiny').items()
    }
    return _with_buffers(tensors) | {'text_encoder.embeddings.position_ids': np.arange(40)[None]}


def _with_buffers(tensors):
    return tensors | {
        name.replace('bias_table', 'index'): np.zeros((392, 392), np.int64)
        for name in tensors
        if name.endswith('relative_position_bias_table')
    }


def roberta(pooler=True):
    """Of Hugging Face's RobertaModel."""
    return {
        name.removeprefix(sources.ROBERTA): x
        for name, x in sgmg().items()
        if name.startswith(sources.ROBERTA) and (pooler or '.pooler.' not in name)
    }


def masked_lm():
    """As roberta-base/model.safetensors on Hugging Face: the masked-language model's, which has no pooler."""
    channels, words = 48, roberta()['embeddings.word_embeddings.weight']
    return {f'roberta.{name}': x for name, x in roberta(pooler=False).items()} | {
        'lm_head.bias': np.zeros(len(words), np.float32),
        'lm_head.dense.bias': np.zeros(channels, np.float32),
        'lm_head.dense.weight': np.zeros((channels, channels), np.float32),
        'lm_head.layer_norm.bias': np.zeros(channels, np.float32),
        'lm_head.layer_norm.weight': np.ones(channels, np.float32),
        'lm_head.decoder.weight': words,
    }


def kinetics():
    """The backbone as the Video Swin of action recognition has it."""
    rng = np.random.default_rng(0)
    tensors = {'backbone.norm.weight': np.ones(192, np.float32), 'cls_head.fc_cls.bias': np.ones(400, np.float32)}
    for name, x in sgmg().items():
        if name.startswith(sources.SWIN):
            name = name.removeprefix(sources.SWIN)
            if name.startswith('downsamples.'):
                _, stage, rest = name.split('.', 2)
                name = f'layers.{stage}.downsample.{rest}'
            tensors[f'backbone.{name}'] = x
    tensors['backbone.patch_embed.proj.weight'] = rng.standard_normal((24, 3, 2, 4, 4), dtype=np.float32)
    return tensors


def written(tensors, path):
    path.parent.mkdir(exist_ok=True)
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, path)
    return path
