"""The official state dicts' names and layouts, SgMg's and SOC's, and ours.

RULES says for every official name (a regular expression) where it goes, and the same table is read
backwards. Matrices and convolutions come as PyTorch's (out, in, ...) and become (..., in, out),
reshaped to our parameter; everything else is copied. An official tensor that holds several of our
parameters is split. Nothing is computed, so the way to and fro changes no bit.
"""
import collections
import itertools
import re

from flax import traverse_util
import numpy as np

from sgmg_jax import files

_NORM = re.compile(r'(norm\d?|LayerNorm|gn\d|input_proj\.\d\.1)\.weight$')
_TABLE = re.compile(r'((embeddings|query_embed|fq_pos)\.weight|bias_table|level_embed)$')
_LINEAR = r'\.(weight|bias)'
_ATTENTION = {'sampling_offsets': 'offsets', 'attention_weights': 'weights',
              'value_proj': 'values', 'output_proj': 'projection'}
SWIN = 'backbone.0.body.'
ROBERTA = 'text_encoder.text_backbone.'
SOC_ROBERTA = 'text_encoder.'  # the same there
_SWIN, _ROBERTA = map(re.escape, (SWIN, ROBERTA))
GROUPS = 6  # lines of each kind in an error


def _rules():
    block = _SWIN + r'layers\.(\d+)\.blocks\.(\d+)\.'
    layer = _ROBERTA + r'encoder\.layer\.(\d+)\.'
    encoder, decoder = (rf'transformer\.{x}\.layers\.(\d+)\.' for x in ('encoder', 'decoder'))
    rules = {
        _SWIN + r'patch_embed\.proj': 'video_encoder/patch_embedding',
        _SWIN + r'patch_embed\.norm': 'video_encoder/patch_norm',
        _SWIN + r'downsamples\.(\d+)\.(norm|reduction)': r'video_encoder/merging\1/\2',
        block + r'(norm1|norm2)': r'video_encoder/stage\1_block\2/\3',
        block + r'attn\.qkv': r'video_encoder/stage\1_block\2/attention/qkv',
        block + r'attn\.proj': r'video_encoder/stage\1_block\2/attention/projection',
        block + r'mlp\.fc1': r'video_encoder/stage\1_block\2/mlp_in',
        block + r'mlp\.fc2': r'video_encoder/stage\1_block\2/mlp_out',
        _ROBERTA + r'embeddings\.LayerNorm': 'text_backbone/embedding_norm',
        _ROBERTA + r'pooler\.dense': 'text_backbone/pooler',
        layer + r'attention\.self\.(query|key|value)': r'text_backbone/layer\1_attention/\2',
        layer + r'attention\.output\.dense': r'text_backbone/layer\1_attention/out',
        layer + r'attention\.output\.LayerNorm': r'text_backbone/layer\1_attention_norm',
        layer + r'intermediate\.dense': r'text_backbone/layer\1_mlp_in',
        layer + r'output\.dense': r'text_backbone/layer\1_mlp_out',
        layer + r'output\.LayerNorm': r'text_backbone/layer\1_mlp_norm',
        r'text_proj\.fc': 'word_projection/linear',
        r'text_proj\.layer_norm': 'word_projection/norm',
        r'sentence_proj\.fc': 'sentence_projection/linear',
        r'sentence_proj\.layer_norm': 'sentence_projection/norm',
        r'input_proj\.(\d)\.0': r'projections_\1',
        r'input_proj\.(\d)\.1': r'projection_norms_\1',
        r'transformer\.reference_points': 'transformer/reference_points',
        encoder + r'norm1': r'transformer/encoder\1/attention_norm',
        encoder + r'norm2': r'transformer/encoder\1/feed_forward/norm',
        decoder + r'norm1': r'transformer/decoder\1/attention_norm',
        decoder + r'norm2': r'transformer/decoder\1/self_attention_norm',
        decoder + r'norm3': r'transformer/decoder\1/feed_forward/norm',
        r'bbox_embed\.(\d+)\.layers\.(\d)': r'transformer/box_head\1/layer\2',
        r'class_embed\.(\d+)': r'class_heads_\1',
        r'controller\.layers\.(\d)': r'patch_kernels/controller/layer\1',
        r'mask_refine\.conv2_1div(4|8)': r'mask_optimizer/stride\1/out',
        # SOC's, where it is not as SgMg.
        r'txt_proj\.fc': 'text_projection/linear',
        r'txt_proj\.layer_norm': 'text_projection/norm',
        r'spatial_decoder\.lay(\d)': r'feature_pyramid/conv\1',
        r'spatial_decoder\.gn(\d)': r'feature_pyramid/norm\1',
        r'spatial_decoder\.adapter(\d)': r'feature_pyramid/lateral\1',
        r'spatial_decoder\.out_lay': 'feature_pyramid/out',
        r'voc\.decoder_norm': 'object_cluster/norm',
        r'voc\.enc_self_attn\.(\d+)\.norm': r'object_cluster/encoder\1_attention_norm',
    }
    attentions = {
        r'fusion_module\.multihead_attn': 'word_attention/attention',
        decoder + 'self_attn': r'transformer/decoder\1/self_attention',
        r'vlf\.multihead_attn': 'fusion/to_vision/attention',
        r'lvf\.multihead_attn': 'fusion/to_language/attention',
        r'voc\.enc_self_attn\.(\d+)\.self_attn': r'object_cluster/encoder\1_attention',
    }
    for part, attention, name in (('cross', 'multihead_attn', 'attention'), ('self', 'self_attn', 'self_attention')):
        layer = rf'voc\.transformer_{part}_attention_layers\.(\d+)\.'
        attentions[layer + attention] = rf'object_cluster/decoder\1_{name}'
        rules[layer + 'norm'] = rf'object_cluster/decoder\1_{name}_norm'
    for layer, side in ((r'enc_ffn', 'encoder'), ('transformer_ffn_layers', 'decoder')):
        for part, name in (('linear1', 'in'), ('linear2', 'out'), ('norm', 'norm')):
            rules[rf'voc\.{layer}\.(\d+)\.{part}'] = rf'object_cluster/{side}\1_feed_forward/{name}'
    for official, ours in (('input_fft', 'augment_before'), ('input_fft_post', 'augment_after')):
        for part, name in (('laplace', 'laplace'), (r'fc\.0', 'strength_in'), (r'fc\.2', 'strength_out'),
                           ('conv1', 'conv1'), ('conv2', 'conv2')):
            rules[rf'{official}\.(\d)\.{part}'] = rf'{ours}_\1/{name}'
    for stack, side in ((encoder, 'encoder'), (decoder, 'decoder')):
        for part, name in _ATTENTION.items():
            module = 'self_attn' if side == 'encoder' else 'cross_attn'
            rules[stack + rf'{module}\.{part}'] = rf'transformer/{side}\1/attention/{name}'
        rules[stack + 'linear1'] = rf'transformer/{side}\1/feed_forward/in'
        rules[stack + 'linear2'] = rf'transformer/{side}\1/feed_forward/out'

    table = {pattern + _LINEAR: (target + '/{leaf}',) for pattern, target in rules.items()}
    for pattern, target in attentions.items():
        table[pattern + r'\.out_proj' + _LINEAR] = (target + '/out/{leaf}',)
        table[pattern + r'\.in_proj_(weight|bias)'] = tuple(
            f'{target}/{part}/{{leaf}}' for part in ('query', 'key', 'value'))
    table.update({
        _SWIN + r'layers\.(\d+)\.blocks\.(\d+)\.attn\.relative_position_bias_table':
            (r'video_encoder/stage\1_block\2/attention/relative_position_bias',),
        _ROBERTA + r'embeddings\.word_embeddings\.weight': ('text_backbone/words/embedding',),
        _ROBERTA + r'embeddings\.position_embeddings\.weight': ('text_backbone/positions/embedding',),
        _ROBERTA + r'embeddings\.token_type_embeddings\.weight': ('text_backbone/kinds/embedding',),
        r'transformer\.level_embed': ('transformer/level_embedding',),
        r'query_embed\.weight': ('query_embedding',),
        r'voc\.query_embed\.weight': ('object_cluster/query_embedding',),
        r'voc\.fq_pos\.weight': ('object_cluster/frame_query_embedding',),
        r'mask_refine\.conv1_1div(4|8)\.weight': (r'mask_optimizer/stride\1/masks/kernel',
                                                  r'mask_optimizer/stride\1/features/kernel'),
        r'mask_refine\.conv1_1div(4|8)\.bias': (r'mask_optimizer/stride\1/masks/bias',),
    })
    return {re.compile(pattern): targets for pattern, targets in table.items()}


OURS_ALONE = {'decouple'}  # parts that the release has no weights of: Fast SgMg's
RULES = _rules()


def _backwards(rules):
    """[(regular expression of our path, official name with \\1 for its groups, which part it is of how many)]."""
    entries = []
    for pattern, targets in rules.items():
        groups = re.findall(r'\((.*?)\)', pattern.pattern)
        numbers = itertools.count(1)
        official = re.sub(r'\(.*?\)', lambda _, numbers=numbers: rf'\g<g{next(numbers)}>', pattern.pattern)
        for part, target in enumerate(targets):
            ours = re.sub(r'\\(\d)', lambda m, groups=groups: f'(?P<g{m[1]}>{groups[int(m[1]) - 1]})', target)
            ours = ours.replace('{leaf}', f'(?P<g{len(groups)}>kernel|scale|bias)')
            entries.append((re.compile(ours), official.replace(r'\.', '.'), part, len(targets)))
    return entries


_BACKWARDS = _backwards(RULES)


def from_official(tensors, shapes, skip='', called=None):
    """Official tensors -> our parameters.

    Args:
      tensors: name -> array, or what becomes one by np.asarray and has its shape, with the official names and layouts;
        only what `shapes` holds.
      shapes: our parameter tree (nested dicts of anything with a shape), whole or a part of it.
      skip: a regular expression; parameters of ours that match as a whole may be missing or of another size.
      called: what to call tensors in an error, by official name, where it is not that.

    Returns:
      the same tree with NumPy arrays, without those that `skip` names.

    Raises:
      ValueError: with a table of tensors that have no place here, parameters that are not in the
        checkpoint, and tensors of another size; and what that probably means.
    """
    wanted = traverse_util.flatten_dict(shapes, sep='/')
    skipped = {path for path in wanted if skip and re.fullmatch(skip, path)}
    zeros = {path: np.broadcast_to(np.float32(0), x.shape) for path, x in wanted.items()}
    expected = to_official(traverse_util.unflatten_dict(zeros, sep='/'))
    found, unknown, misfits, named = {}, [], [], set()
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
        # Only now, as a few bytes of a file can claim tensors of any size.
        placed = place(name, np.asarray(tensor)).items()
        found |= {path: part.reshape(wanted[path].shape) for path, part in placed if path not in skipped}
    missing = sorted(set(wanted) - named - skipped)
    if unknown or misfits or missing:
        theirs, ours = describe(tensors), describe(expected)
        check(unknown, misfits, missing, [
            f'this is a checkpoint with {theirs[field]}, the config says {value}'
            for field, value in ours.items() if field in theirs and theirs[field] != value])
    return traverse_util.unflatten_dict(found, sep='/')


def check(unknown, misfits, missing, reasons=()):
    """Raises a ValueError with a table of the differences, grouped by name without its numbers, if there are any."""
    lines = []
    for title, names in (('has no place here', unknown), ('is of another size', misfits),
                         ('is not in the checkpoint', missing)):
        groups = collections.defaultdict(list)
        for name in names:
            name = files.printable(name[:200])
            groups[re.sub(r'\d+(?=[./_]|$)', '*', name.split(' ')[0])].append(name)
        lines += [f'  {title:24}{len(group):4} x {group[0] if len(group) == 1 else pattern + ", such as " + group[0]}'
                  for pattern, group in sorted(groups.items(), key=lambda item: -len(item[1]))[:GROUPS]]
        if len(groups) > GROUPS:
            lines.append(f'  {title:24} and {len(groups) - GROUPS} kinds more')
    if lines:
        raise ValueError('\n'.join([
            'these weights do not fit the model.', *(f'Probably: {reason}.' for reason in reasons), *lines,
            'Give the config of the model they are of, or leave parameters out by a regular expression '
            "(--skip, config.init_skip), such as 'class_heads_.*'."]))


def describe(tensors):
    """What can be told of a model by its official tensors (name -> anything with a shape): {field: words}."""
    def size(name, axis):
        shape = tensors[name].shape if name in tensors else ()
        return shape[axis] if axis < len(shape) else None

    def count(pattern):
        return len({m[1] for m in (re.match(pattern, name) for name in tensors) if m})

    words = {}
    if 'query_embed.weight' in tensors:
        words['system'] = 'SOC' if 'voc.query_embed.weight' in tensors else 'SgMg'
    channels, blocks = size(SWIN + 'patch_embed.proj.weight', 0), count(_SWIN + r'layers\.2\.blocks\.(\d+)\.')
    if channels:
        names = {(96, 6): 'Video-Swin-T', (96, 18): 'Video-Swin-S', (128, 18): 'Video-Swin-B'}
        words['backbone'] = names.get(
            (channels, blocks), f'a Video Swin of {channels} channels, {blocks} blocks in its third stage')
    table, layers = ROBERTA + 'embeddings.word_embeddings.weight', count(_ROBERTA + r'encoder\.layer\.(\d+)\.')
    channels = size(table, 1)
    if channels:
        words['text'] = {(12, 768): 'RoBERTa-base', (24, 1024): 'RoBERTa-large'}.get(
            (layers, channels), f'a RoBERTa of {layers} layers, {channels} channels')
        words['vocabulary'] = f'{size(table, 0)} tokens'
    for name, axis, what in (('query_embed.weight', 0, 'queries'), ('query_embed.weight', 1, 'hidden channels'),
                             ('transformer.level_embed', 0, 'levels'), ('class_embed.0.weight', 0, 'classes')):
        if size(name, axis):
            words[what] = f'{size(name, axis)} {what}'
    for part in ('encoder', 'decoder'):
        layers = count(rf'transformer\.{part}\.layers\.(\d+)\.')
        if layers:
            words[part] = f'{layers} {part} layers'
    return words


def canonical_name(name):
    """The decoder's box heads are stored under two names; this is the one the rules know."""
    return name.replace('transformer.decoder.bbox_embed.', 'bbox_embed.')


def soc_name(name):
    """What the released SOC calls a tensor; ours, SgMg's and SOC's names differ in the text encoder's alone."""
    return name.replace(ROBERTA, SOC_ROBERTA)


def targets(name):
    """Paths of our parameters that an official tensor holds, in its order; none if the name is not known."""
    name = canonical_name(name)
    for pattern, paths in RULES.items():
        match = pattern.fullmatch(name)
        if match:
            leaf = 'bias' if name.endswith('bias') else 'scale' if _NORM.search(name) else 'kernel'
            return [match.expand(path).replace('{leaf}', leaf) for path in paths]
    return []


def place(name, tensor):
    """Where an official tensor goes: our parameter's path -> its numbers in our order of axes.

    Only the shape may still differ (heads are an axis of ours). Empty if the name is not known.
    """
    paths, name = targets(name), canonical_name(name)
    return dict(zip(paths, (_ours(name, part) for part in _parts(tensor, len(paths))))) if paths else {}


def _parts(x, count):
    if count == 2:  # the optimizer's first convolution: 16 patch positions, then the features
        return np.split(x, [16], axis=1)
    return np.split(x, count)


def _ours(name, x):
    return x if x.ndim < 2 or _TABLE.search(name) else np.transpose(x, (*range(2, x.ndim), 1, 0))


def to_official(parameters):
    """Our parameters (nested dicts of arrays) -> {official name: NumPy array in PyTorch's layout}.

    The box heads appear under both names that the released model gives them.

    Raises:
      ValueError: naming parameters that the released model does not have, or that are of no shape it could have.
    """
    parts, unknown = {}, []
    for path, x in traverse_util.flatten_dict(parameters, sep='/').items():
        name, part, count = _official_name(path)
        if name is None:
            unknown.append(path)
        else:
            parts.setdefault(name, [None] * count)[part] = path, np.asarray(x)
    if unknown:
        raise ValueError(f'The release has no such parameters: '
                         f'{", ".join(files.printable(path[:100]) for path in sorted(unknown)[:5])}.')
    tensors = {}
    for name, of_name in parts.items():
        if None in of_name:
            raise ValueError(f'A part of {name} is missing; beside {next(filter(None, of_name))[0]} there must be '
                             f'{len(of_name) - 1} more.')
        try:
            pieces = [_theirs(name, path, x) for path, x in of_name]
            tensors[name] = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1 if len(pieces) == 2 else 0)
        except ValueError as error:
            shapes = ', '.join(f'{path} {x.shape}' for path, x in of_name)
            raise ValueError(f'{shapes}: {name} cannot have such a shape.') from error
    tensors.update({f'transformer.decoder.{name}': x for name, x in tensors.items() if name.startswith('bbox_embed.')})
    return tensors


def _official_name(path):
    """Our path -> the official tensor's name, which of its parts this is, of how many; or None, 0, 0."""
    for pattern, official, part, count in _BACKWARDS:
        match = pattern.fullmatch(path)
        if match:
            name = re.sub(r'\\g<(g\d)>', lambda m, match=match: match[m[1]], official)
            return re.sub(r'([._])(kernel|scale)$', r'\1weight', name), part, count
    return None, 0, 0


def _theirs(name, path, x):
    """The inverse of `_ours`, and of the reshaping to our parameter."""
    if path.endswith('/bias'):
        return x.reshape(-1)
    if _TABLE.search(name) or x.ndim < 2:
        return x
    if x.ndim == 3:  # attention, where heads are an axis of ours
        x = x.reshape(-1, x.shape[-1]) if path.endswith('/out/kernel') else x.reshape(x.shape[0], -1)
    if name.endswith('patch_embed.proj.weight'):  # a 3-D convolution of one frame
        x = x[None]
    elif re.search(r'input_fft(_post)?\.\d\.conv\d\.weight$', name):  # 1x1 convolutions
        x = x[None, None]
    return np.transpose(x, (x.ndim - 1, x.ndim - 2, *range(x.ndim - 2)))
