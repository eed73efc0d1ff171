"""The official SgMg state dict's names and layouts, and ours.

RULES says for every official name (a regular expression) where it goes. Matrices and
convolutions come as PyTorch's (out, in, ...) and become (..., in, out), reshaped to our
parameter; everything else is copied. An official tensor that holds several of our parameters
is split.
"""
import re

from flax import traverse_util
import numpy as np

_NORM = re.compile(r'(norm\d?|LayerNorm|input_proj\.\d\.1)\.weight$')
_TABLE = re.compile(r'((embeddings|query_embed)\.weight|bias_table|level_embed)$')
_LINEAR = r'\.(weight|bias)'
_ATTENTION = {'sampling_offsets': 'offsets', 'attention_weights': 'weights',
              'value_proj': 'values', 'output_proj': 'projection'}
_SWIN = r'backbone\.0\.body\.'
_ROBERTA = r'text_encoder\.text_backbone\.'


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
        r'fusion_module\.multihead_attn\.out_proj': 'word_attention/attention/out',
        r'transformer\.reference_points': 'transformer/reference_points',
        encoder + r'norm1': r'transformer/encoder\1/attention_norm',
        encoder + r'norm2': r'transformer/encoder\1/feed_forward/norm',
        decoder + r'norm1': r'transformer/decoder\1/attention_norm',
        decoder + r'norm2': r'transformer/decoder\1/self_attention_norm',
        decoder + r'norm3': r'transformer/decoder\1/feed_forward/norm',
        decoder + r'self_attn\.out_proj': r'transformer/decoder\1/self_attention/out',
        r'bbox_embed\.(\d+)\.layers\.(\d)': r'transformer/box_head\1/layer\2',
        r'class_embed\.(\d+)': r'class_heads_\1',
        r'controller\.layers\.(\d)': r'patch_kernels/controller/layer\1',
        r'mask_refine\.conv2_1div(4|8)': r'mask_optimizer/stride\1/out',
    }
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
    for pattern, target in ((r'fusion_module\.multihead_attn', 'word_attention/attention'),
                            (decoder + 'self_attn', r'transformer/decoder\1/self_attention')):
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
        r'mask_refine\.conv1_1div(4|8)\.weight': (r'mask_optimizer/stride\1/masks/kernel',
                                                  r'mask_optimizer/stride\1/features/kernel'),
        r'mask_refine\.conv1_1div(4|8)\.bias': (r'mask_optimizer/stride\1/masks/bias',),
    })
    return {re.compile(pattern): targets for pattern, targets in table.items()}


RULES = _rules()


def canonical_name(name):
    """The decoder's box heads are stored under two names; this is the one the rules know."""
    return name.replace('transformer.decoder.bbox_embed.', 'bbox_embed.')


def from_official(tensors, shapes):
    """Official tensors -> our parameters.

    Args:
      tensors: name -> array, with the official names and layouts; only what `shapes` holds.
      shapes: our parameter tree (nested dicts of anything with a shape), whole or a part of it.

    Returns:
      the same tree with NumPy arrays.

    Raises:
      ValueError: naming tensors that have no place here, parameters that are not in the checkpoint,
        and tensors of another size.
    """
    wanted = traverse_util.flatten_dict(shapes, sep='/')
    found, unknown, misfits = {}, [], []
    for name, tensor in tensors.items():
        placed = place(name, np.asarray(tensor))
        if not placed or any(target not in wanted for target in placed):
            unknown.append(name)
            continue
        for target, part in placed.items():
            if part.size != np.prod(wanted[target].shape, dtype=int):
                misfits.append(f'{name} {tuple(tensor.shape)} for {target} {tuple(wanted[target].shape)}')
            else:
                found[target] = part.reshape(wanted[target].shape)
    missing = sorted(set(wanted) - set(found))
    if unknown or misfits or missing:
        raise ValueError('The checkpoint does not fit this model.\n' + '\n'.join(
            f'{title} ({len(names)}): ' + ', '.join(names[:5]) + (' ...' if len(names) > 5 else '')
            for title, names in (('no place here', unknown), ('another size', misfits),
                                 ('not in the checkpoint', missing)) if names))
    return traverse_util.unflatten_dict(found, sep='/')


def place(name, tensor):
    """Where an official tensor goes: our parameter's path -> its numbers in our order of axes.

    Only the shape may still differ (heads are an axis of ours). Empty if the name is not known.
    """
    name = canonical_name(name)
    for pattern, targets in RULES.items():
        match = pattern.fullmatch(name)
        if match:
            leaf = 'bias' if name.endswith('bias') else 'scale' if _NORM.search(name) else 'kernel'
            targets = [match.expand(target).replace('{leaf}', leaf) for target in targets]
            return dict(zip(targets, (_ours(name, part) for part in _parts(tensor, len(targets)))))
    return {}


def _parts(x, count):
    if count == 2:  # the optimizer's first convolution: 16 patch positions, then the features
        return np.split(x, [16], axis=1)
    return np.split(x, count)


def _ours(name, x):
    return x if x.ndim < 2 or _TABLE.search(name) else np.transpose(x, (*range(2, x.ndim), 1, 0))
