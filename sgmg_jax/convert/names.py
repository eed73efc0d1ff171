"""Tensor names and layouts of the official state dicts, SgMg's and SOC's, and of our parameters.

RULES is a table of official names and our paths; it is read in both directions. PyTorch's matrices and convolutions
(out, in, ...) become (..., in, out), reshaped to our parameter; all other tensors are copied. An official tensor that
holds several of our parameters is split. Nothing is computed, so converting to and fro changes no bit.
"""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
import re
from typing import Any, NamedTuple

from flax import traverse_util
import numpy as np

from sgmg_jax import files

_TABLE = re.compile(r'((embeddings|query_embed|fq_pos)\.weight|bias_table|level_embed)$')  # not transposed
SWIN = 'backbone.0.body.'
ROBERTA = 'text_encoder.text_backbone.'
SOC_ROBERTA = 'text_encoder.'  # the same in SOC's files
_SWIN, _ROBERTA = map(re.escape, (SWIN, ROBERTA))
GROUPS = 6  # lines per kind of problem in an error
OURS_ALONE = {'decouple'}  # parts without released weights: Fast SgMg's


class Rule(NamedTuple):
    """An official tensor and our parameters in it, in its order; {i} and {j} stand for numbers."""

    official: str
    ours: tuple[str, ...]


def _linear(official: str, ours: str) -> Iterator[Rule]:
    """A linear layer or a convolution."""
    yield Rule(f'{official}.weight', (f'{ours}/kernel',))
    yield Rule(f'{official}.bias', (f'{ours}/bias',))


def _norm(official: str, ours: str) -> Iterator[Rule]:
    yield Rule(f'{official}.weight', (f'{ours}/scale',))
    yield Rule(f'{official}.bias', (f'{ours}/bias',))


def _attention(official: str, ours: str) -> Iterator[Rule]:
    """torch.nn.MultiheadAttention."""
    yield from _linear(f'{official}.out_proj', f'{ours}/out')
    for kind, leaf in (('weight', 'kernel'), ('bias', 'bias')):
        yield Rule(f'{official}.in_proj_{kind}', tuple(f'{ours}/{part}/{leaf}' for part in ('query', 'key', 'value')))


def _swin() -> Iterator[Rule]:
    yield from _linear(SWIN + 'patch_embed.proj', 'video_encoder/patch_embedding')
    yield from _norm(SWIN + 'patch_embed.norm', 'video_encoder/patch_norm')
    yield from _norm(SWIN + 'downsamples.{i}.norm', 'video_encoder/merging{i}/norm')
    yield from _linear(SWIN + 'downsamples.{i}.reduction', 'video_encoder/merging{i}/reduction')
    official, ours = SWIN + 'layers.{i}.blocks.{j}', 'video_encoder/stage{i}_block{j}'
    yield from _norm(f'{official}.norm1', f'{ours}/norm1')
    yield from _norm(f'{official}.norm2', f'{ours}/norm2')
    yield from _linear(f'{official}.attn.qkv', f'{ours}/attention/qkv')
    yield from _linear(f'{official}.attn.proj', f'{ours}/attention/projection')
    yield from _linear(f'{official}.mlp.fc1', f'{ours}/mlp_in')
    yield from _linear(f'{official}.mlp.fc2', f'{ours}/mlp_out')
    yield Rule(f'{official}.attn.relative_position_bias_table', (f'{ours}/attention/relative_position_bias',))


def _roberta() -> Iterator[Rule]:
    for name, ours in (('word', 'words'), ('position', 'positions'), ('token_type', 'kinds')):
        yield Rule(f'{ROBERTA}embeddings.{name}_embeddings.weight', (f'text_backbone/{ours}/embedding',))
    yield from _norm(ROBERTA + 'embeddings.LayerNorm', 'text_backbone/embedding_norm')
    yield from _linear(ROBERTA + 'pooler.dense', 'text_backbone/pooler')
    official, ours = ROBERTA + 'encoder.layer.{i}', 'text_backbone/layer{i}'
    for part in ('query', 'key', 'value'):
        yield from _linear(f'{official}.attention.self.{part}', f'{ours}_attention/{part}')
    yield from _linear(f'{official}.attention.output.dense', f'{ours}_attention/out')
    yield from _norm(f'{official}.attention.output.LayerNorm', f'{ours}_attention_norm')
    yield from _linear(f'{official}.intermediate.dense', f'{ours}_mlp_in')
    yield from _linear(f'{official}.output.dense', f'{ours}_mlp_out')
    yield from _norm(f'{official}.output.LayerNorm', f'{ours}_mlp_norm')


def _transformer() -> Iterator[Rule]:
    yield Rule('query_embed.weight', ('query_embedding',))
    yield Rule('transformer.level_embed', ('transformer/level_embedding',))
    yield from _linear('transformer.reference_points', 'transformer/reference_points')
    yield from _linear('input_proj.{i}.0', 'projections_{i}')
    yield from _norm('input_proj.{i}.1', 'projection_norms_{i}')
    encoder, decoder = 'transformer.encoder.layers.{i}', 'transformer.decoder.layers.{i}'
    for official, side, attention in ((encoder, 'encoder', 'self_attn'), (decoder, 'decoder', 'cross_attn')):
        ours = f'transformer/{side}{{i}}'
        for part, name in (
            ('sampling_offsets', 'offsets'),
            ('attention_weights', 'weights'),
            ('value_proj', 'values'),
            ('output_proj', 'projection'),
        ):
            yield from _linear(f'{official}.{attention}.{part}', f'{ours}/attention/{name}')
        yield from _linear(f'{official}.linear1', f'{ours}/feed_forward/in')
        yield from _linear(f'{official}.linear2', f'{ours}/feed_forward/out')
        yield from _norm(f'{official}.norm1', f'{ours}/attention_norm')
    yield from _norm(f'{encoder}.norm2', 'transformer/encoder{i}/feed_forward/norm')
    yield from _attention(f'{decoder}.self_attn', 'transformer/decoder{i}/self_attention')
    yield from _norm(f'{decoder}.norm2', 'transformer/decoder{i}/self_attention_norm')
    yield from _norm(f'{decoder}.norm3', 'transformer/decoder{i}/feed_forward/norm')
    yield from _linear('bbox_embed.{i}.layers.{j}', 'transformer/box_head{i}/layer{j}')
    yield from _linear('class_embed.{i}', 'class_heads_{i}')
    yield from _linear('controller.layers.{i}', 'patch_kernels/controller/layer{i}')


def _sgmg() -> Iterator[Rule]:
    """The parts of SgMg around encoders and transformer."""
    for official, ours in (('text_proj', 'word_projection'), ('sentence_proj', 'sentence_projection')):
        yield from _linear(f'{official}.fc', f'{ours}/linear')
        yield from _norm(f'{official}.layer_norm', f'{ours}/norm')
    yield from _attention('fusion_module.multihead_attn', 'word_attention/attention')
    for official, ours in (('input_fft', 'augment_before'), ('input_fft_post', 'augment_after')):
        for part, name in (
            ('laplace', 'laplace'),
            ('fc.0', 'strength_in'),
            ('fc.2', 'strength_out'),
            ('conv1', 'conv1'),
            ('conv2', 'conv2'),
        ):
            yield from _linear(f'{official}.{{i}}.{part}', f'{ours}_{{i}}/{name}')
    for stride in (4, 8):
        ours = f'mask_optimizer/stride{stride}'
        yield Rule(f'mask_refine.conv1_1div{stride}.weight', (f'{ours}/masks/kernel', f'{ours}/features/kernel'))
        yield Rule(f'mask_refine.conv1_1div{stride}.bias', (f'{ours}/masks/bias',))
        yield from _linear(f'mask_refine.conv2_1div{stride}', f'{ours}/out')


def _soc() -> Iterator[Rule]:
    """The parts of SOC that SgMg lacks."""
    yield from _linear('txt_proj.fc', 'text_projection/linear')
    yield from _norm('txt_proj.layer_norm', 'text_projection/norm')
    yield from _attention('vlf.multihead_attn', 'fusion/to_vision/attention')
    yield from _attention('lvf.multihead_attn', 'fusion/to_language/attention')
    yield from _linear('spatial_decoder.lay{i}', 'feature_pyramid/conv{i}')
    yield from _norm('spatial_decoder.gn{i}', 'feature_pyramid/norm{i}')
    yield from _linear('spatial_decoder.adapter{i}', 'feature_pyramid/lateral{i}')
    yield from _linear('spatial_decoder.out_lay', 'feature_pyramid/out')
    yield Rule('voc.query_embed.weight', ('object_cluster/query_embedding',))
    yield Rule('voc.fq_pos.weight', ('object_cluster/frame_query_embedding',))
    yield from _norm('voc.decoder_norm', 'object_cluster/norm')
    yield from _attention('voc.enc_self_attn.{i}.self_attn', 'object_cluster/encoder{i}_attention')
    yield from _norm('voc.enc_self_attn.{i}.norm', 'object_cluster/encoder{i}_attention_norm')
    for official, attention, ours in (
        ('voc.transformer_cross_attention_layers.{i}', 'multihead_attn', 'object_cluster/decoder{i}_attention'),
        ('voc.transformer_self_attention_layers.{i}', 'self_attn', 'object_cluster/decoder{i}_self_attention'),
    ):
        yield from _attention(f'{official}.{attention}', ours)
        yield from _norm(f'{official}.norm', f'{ours}_norm')
    for official, ours in (
        ('voc.enc_ffn.{i}', 'object_cluster/encoder{i}_feed_forward'),
        ('voc.transformer_ffn_layers.{i}', 'object_cluster/decoder{i}_feed_forward'),
    ):
        yield from _linear(f'{official}.linear1', f'{ours}/in')
        yield from _linear(f'{official}.linear2', f'{ours}/out')
        yield from _norm(f'{official}.norm', f'{ours}/norm')


RULES = (*_swin(), *_roberta(), *_transformer(), *_sgmg(), *_soc())


def _pattern(template: str) -> re.Pattern:
    """Matches the names that a template stands for."""
    return re.compile(re.sub(r'\\{(\w)\\}', r'(?P<\1>[0-9]+)', re.escape(template)))


_OFFICIAL = [(_pattern(rule.official), rule) for rule in RULES]
_OURS = [(_pattern(path), rule, part) for rule in RULES for part, path in enumerate(rule.ours)]


def from_official(
    tensors: Mapping[str, Any], shapes: Mapping, skip: str = '', called: Mapping[str, str] | None = None
) -> dict:
    """Converts official tensors to our parameters.

    Args:
      tensors: official name -> array in the official layout (anything with a shape that np.asarray takes), for the
        parameters in `shapes` only.
      shapes: our parameter tree (nested dicts of anything with a shape), or a part of it.
      skip: a regular expression; parameters of ours whose whole path matches may be missing or of another size.
      called: official name -> name of the tensor in errors, if it is another one.

    Returns:
      the same tree with NumPy arrays, without the skipped parameters.

    Raises:
      ValueError: with a table of unknown tensors, missing parameters and wrong sizes, and their probable reason.
    """
    wanted = traverse_util.flatten_dict(shapes, sep='/')
    skipped = {path for path in wanted if skip and re.fullmatch(skip, path)}
    zeros = {path: np.broadcast_to(np.float32(0), x.shape) for path, x in wanted.items()}
    expected = to_official(traverse_util.unflatten_dict(zeros, sep='/'))
    found: dict[str, np.ndarray] = {}
    unknown, misfits = [], []
    named: set[str] = set()
    for name, tensor in tensors.items():
        there = (called or {}).get(name, name)
        if name not in expected:
            unknown.append(there)
            continue
        paths = targets(name)
        named.update(paths)
        if skipped.issuperset(paths):
            continue
        if tuple(tensor.shape) != expected[name].shape:
            misfits.append(f'{there} {tuple(tensor.shape)}, which should be {expected[name].shape}')
            continue
        # Only after the check: a few bytes of a file can claim tensors of any size.
        placed = place(name, np.asarray(tensor)).items()
        found |= {path: part.reshape(wanted[path].shape) for path, part in placed if path not in skipped}
    missing = sorted(set(wanted) - named - skipped)
    if unknown or misfits or missing:
        theirs, ours = describe(tensors), describe(expected)
        check(
            unknown,
            misfits,
            missing,
            [
                f'this is a checkpoint with {theirs[field]}, the config says {value}'
                for field, value in ours.items()
                if field in theirs and theirs[field] != value
            ],
        )
    return traverse_util.unflatten_dict(found, sep='/')


def check(unknown: Iterable[str], misfits: Iterable[str], missing: Iterable[str], reasons: Sequence[str] = ()) -> None:
    """Raises a ValueError with a table of the differences, if any, grouped by name without its numbers."""
    lines: list[str] = []
    for title, names in (
        ('has no place here', unknown),
        ('is of another size', misfits),
        ('is not in the checkpoint', missing),
    ):
        groups: collections.defaultdict[str, list[str]] = collections.defaultdict(list)
        for name in names:
            name = files.printable(name[:200])
            groups[re.sub(r'\d+(?=[./_]|$)', '*', name.split(' ')[0])].append(name)
        lines += [
            f'  {title:24}{len(group):4} x {group[0] if len(group) == 1 else pattern + ", such as " + group[0]}'
            for pattern, group in sorted(groups.items(), key=lambda item: -len(item[1]))[:GROUPS]
        ]
        if len(groups) > GROUPS:
            lines.append(f'  {title:24} and {len(groups) - GROUPS} more kinds')
    if lines:
        lines = [
            'these weights do not fit the model.',
            *(f'Probably: {reason}.' for reason in reasons),
            *lines,
            'Give the config of the model that they belong to, or leave out parameters with a regular expression '
            "(--skip, config.init_skip), such as 'class_heads_.*'.",
        ]
        raise ValueError('\n'.join(lines))


def describe(tensors: Mapping[str, Any]) -> dict[str, str]:
    """Describes a model by its official tensors (name -> anything with a shape): {field: words}."""

    def size(name: str, axis: int) -> int | None:
        shape = tensors[name].shape if name in tensors else ()
        return shape[axis] if axis < len(shape) else None

    def count(pattern: str) -> int:
        return len({m[1] for m in (re.match(pattern, name) for name in tensors) if m})

    words = {}
    if 'query_embed.weight' in tensors:
        words['system'] = 'SOC' if 'voc.query_embed.weight' in tensors else 'SgMg'
    channels, blocks = size(SWIN + 'patch_embed.proj.weight', 0), count(_SWIN + r'layers\.2\.blocks\.(\d+)\.')
    if channels:
        names = {(96, 6): 'Video-Swin-T', (96, 18): 'Video-Swin-S', (128, 18): 'Video-Swin-B'}
        words['backbone'] = names.get(
            (channels, blocks), f'a Video Swin of {channels} channels, {blocks} blocks in its third stage'
        )
    table, layers = ROBERTA + 'embeddings.word_embeddings.weight', count(_ROBERTA + r'encoder\.layer\.(\d+)\.')
    channels = size(table, 1)
    if channels:
        words['text'] = {(12, 768): 'RoBERTa-base', (24, 1024): 'RoBERTa-large'}.get(
            (layers, channels), f'a RoBERTa of {layers} layers, {channels} channels'
        )
        words['vocabulary'] = f'{size(table, 0)} tokens'
    for name, axis, what in (
        ('query_embed.weight', 0, 'queries'),
        ('query_embed.weight', 1, 'hidden channels'),
        ('transformer.level_embed', 0, 'levels'),
        ('class_embed.0.weight', 0, 'classes'),
    ):
        if size(name, axis):
            words[what] = f'{size(name, axis)} {what}'
    for part in ('encoder', 'decoder'):
        layers = count(rf'transformer\.{part}\.layers\.(\d+)\.')
        if layers:
            words[part] = f'{layers} {part} layers'
    return words


def canonical_name(name: str) -> str:
    """The name that RULES has for a box head, which the released SgMg stores under two names."""
    return name.replace('transformer.decoder.bbox_embed.', 'bbox_embed.')


def soc_name(name: str) -> str:
    """The released SOC's name of a tensor; it differs only in the text encoder."""
    return name.replace(ROBERTA, SOC_ROBERTA)


def targets(name: str) -> list[str]:
    """Paths of our parameters in an official tensor, in its order; empty for an unknown name."""
    for pattern, rule in _OFFICIAL:
        match = pattern.fullmatch(canonical_name(name))
        if match:
            return [path.format(**match.groupdict()) for path in rule.ours]
    return []


def place(name: str, tensor: np.ndarray) -> dict[str, np.ndarray]:
    """Splits and transposes an official tensor: our path -> its numbers in our axis order. Empty for an unknown name.

    The shape may still differ, because attention heads are an axis of ours.
    """
    paths, name = targets(name), canonical_name(name)
    return dict(zip(paths, (_ours(name, part) for part in _parts(tensor, len(paths))))) if paths else {}


def _parts(x: np.ndarray, count: int) -> list[np.ndarray]:
    if count == 2:  # the optimizer's first convolution: 16 patch positions, then the features
        return np.split(x, [16], axis=1)
    return np.split(x, count)


def _ours(name: str, x: np.ndarray) -> np.ndarray:
    return x if x.ndim < 2 or _TABLE.search(name) else np.transpose(x, (*range(2, x.ndim), 1, 0))


def to_official(parameters: Mapping) -> dict[str, np.ndarray]:
    """Converts our parameters (nested dicts of arrays) to official name -> array in PyTorch's layout.

    The box heads get both names that the released model has for them.

    Raises:
      ValueError: naming parameters that the released model lacks, or whose shape it could not have.
    """
    parts: dict[str, list[tuple[str, np.ndarray] | None]] = {}
    unknown = []
    for path, x in traverse_util.flatten_dict(parameters, sep='/').items():
        for pattern, rule, part in _OURS:
            match = pattern.fullmatch(path)
            if match:
                name = rule.official.format(**match.groupdict())
                parts.setdefault(name, [None] * len(rule.ours))[part] = path, np.asarray(x)
                break
        else:
            unknown.append(path)
    if unknown:
        raise ValueError(
            f'The release has no such parameters: '
            f'{", ".join(files.printable(path[:100]) for path in sorted(unknown)[:5])}.'
        )
    tensors: dict[str, np.ndarray] = {}
    for name, found in parts.items():
        pieces = [piece for piece in found if piece]
        if len(pieces) < len(found):
            raise ValueError(f'A part of {name} is missing: {pieces[0][0]} needs {len(found) - 1} more beside it.')
        try:
            arrays = [_theirs(name, path, x) for path, x in pieces]
            tensors[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1 if len(arrays) == 2 else 0)
        except ValueError as error:
            shapes = ', '.join(f'{path} {x.shape}' for path, x in pieces)
            raise ValueError(f'{shapes}: {name} cannot have such a shape.') from error
    tensors.update({f'transformer.decoder.{name}': x for name, x in tensors.items() if name.startswith('bbox_embed.')})
    return tensors


def _theirs(name: str, path: str, x: np.ndarray) -> np.ndarray:
    """The inverse of `_ours`, and of the reshaping to our parameter."""
    if path.endswith('/bias'):
        return x.reshape(-1)
    if _TABLE.search(name) or x.ndim < 2:
        return x
    if x.ndim == 3:  # attention: heads are an axis of ours
        x = x.reshape(-1, x.shape[-1]) if path.endswith('/out/kernel') else x.reshape(x.shape[0], -1)
    if name.endswith('patch_embed.proj.weight'):  # a 3-D convolution of one frame
        x = x[None]
    elif re.search(r'input_fft(_post)?\.\d\.conv\d\.weight$', name):  # 1x1 convolutions
        x = x[None, None]
    return np.transpose(x, (x.ndim - 1, x.ndim - 2, *range(x.ndim - 2)))
