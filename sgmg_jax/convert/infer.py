"""Finds the config of a released model in the shapes of its tensors, so that nobody has to write one."""

from collections.abc import Mapping, Sequence
import os
import re
from typing import Any

from ml_collections import ConfigDict

from sgmg_jax import commands
from sgmg_jax.convert import sources
from sgmg_jax.convert.names import ROBERTA, SWIN
from sgmg_jax.models import roberta, video_swin

HEADS = 8  # of deformable attention in both releases; the tensors show only heads times points
ASSUMED = f'{HEADS} heads of deformable attention, as in both releases: the tensors do not show them'  # for model cards


def config_of(tensors: Mapping[str, Any]) -> ConfigDict:
    """The config of a whole model, on the experiment of its system on Ref-YouTube-VOS.

    System, backbone, text encoder, widths, queries, levels, layers and classes come from the tensors. What they do not
    show is as released: 8 heads, and which layer SOC's masks are from.

    Args:
        tensors: official name (sources.recognise) -> anything with a shape.

    Raises:
        ValueError: a tensor that every release has is missing, or the sizes are of no known encoder.
    """

    def size(name: str, axis: int) -> int:
        if name not in tensors or axis >= len(tensors[name].shape):
            raise ValueError(
                f'{name} is missing: these are not the weights of a whole SgMg or SOC. Give --config, such as '
                'configs/ytvos.py.'
            )
        return int(tensors[name].shape[axis])

    def count(pattern: str) -> int:
        return len({match[1] for name in tensors if (match := re.match(pattern, name))})

    soc = 'voc.query_embed.weight' in tensors
    config = commands.load_config('ytvos_soc' if soc else 'ytvos')
    levels = size('transformer.level_embed', 0)
    samples = size('transformer.encoder.layers.0.self_attn.attention_weights.weight', 0)
    if samples % (HEADS * levels):
        raise ValueError(
            f'{samples} attention weights over {levels} levels are not of {HEADS} heads, as the releases have them. '
            'Give --config with config.model.heads and points.'
        )
    config.model.update(
        backbone=_backbone(
            size(SWIN + 'patch_embed.proj.weight', 0),
            tuple(count(re.escape(SWIN) + rf'layers\.{stage}\.blocks\.(\d+)\.') for stage in range(4)),
        ),
        text_encoder=_text_encoder(
            size(ROBERTA + 'embeddings.word_embeddings.weight', 0),
            size(ROBERTA + 'embeddings.word_embeddings.weight', 1),
            count(re.escape(ROBERTA) + r'encoder\.layer\.(\d+)\.'),
        ),
        hidden=size('query_embed.weight', 1),
        queries=size('query_embed.weight', 0),
        levels=levels,
        points=samples // (HEADS * levels),
        mlp=size('transformer.encoder.layers.0.linear1.weight', 0),
        encoder_layers=count(r'transformer\.encoder\.layers\.(\d+)\.'),
        decoder_layers=count(r'transformer\.decoder\.layers\.(\d+)\.'),
    )
    if soc:
        config.model.update(
            classes=size('class_embed.0.weight', 0),
            cluster_encoder_layers=count(r'voc\.enc_ffn\.(\d+)\.'),
            cluster_decoder_layers=count(r'voc\.transformer_ffn_layers\.(\d+)\.'),
            cluster_mlp=size('voc.enc_ffn.0.linear1.weight', 0),
        )
    return config


def config_of_files(paths: Sequence[str | os.PathLike]) -> ConfigDict:
    """`config_of` the one file with a whole model.

    Raises:
        FileNotFoundError, ValueError: as sources.read, sources.recognise and `config_of`; ValueError also for several
            files and for parts of a model.
    """
    wanted = 'Give --config, such as configs/ytvos.py.'
    if len(paths) != 1:
        raise ValueError(f'{len(paths)} files: the config is only found in one file with a whole model. {wanted}')
    tensors = sources.read(paths[0])
    if any('/' in name for name in tensors):
        raise ValueError(f'{paths[0]}: has the names of sgmg_jax, not those of a release. {wanted}')
    found = sources.recognise(tensors)
    if found.parts is not None:
        raise ValueError(f'{paths[0]}: is a {found.kind}, only a part of a model. {wanted}')
    try:
        return config_of(found.tensors)
    except ValueError as error:
        raise ValueError(f'{paths[0]}: {error}') from error


def _backbone(channels: int, depths: tuple[int, ...]) -> str:
    for name, known in video_swin.SIZES.items():
        if (known.channels, known.depths) == (channels, depths):
            return name
    raise ValueError(
        f'a Video Swin of {channels} channels and {depths} blocks is not one of {", ".join(video_swin.SIZES)} '
        '(models/video_swin.py).'
    )


def _text_encoder(vocabulary: int, channels: int, layers: int) -> str:
    for name, known in roberta.SIZES.items():
        if (known.vocabulary, known.channels, known.layers) == (vocabulary, channels, layers):
            return name
    raise ValueError(
        f'a RoBERTa of {layers} layers, {channels} channels and {vocabulary} tokens is not one of '
        f'{", ".join(roberta.SIZES)} (models/roberta.py).'
    )
