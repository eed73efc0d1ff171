"""What our model gives for a golden case of the authors' release, under the release's names and in its layouts.

A comparison takes a case's arrays and its JSON and returns every `out/`, `grad/` and `norm/` array it knows; the
weights follow from the official tensors' names and a seed.

Axis letters: B clips, T frames, h w a feature map, C channels, Q queries, D decoder layers,
K chosen queries or layers.
"""
import contextlib
import dataclasses
import functools
import json
import re
import zlib

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sgmg_jax import compilation, systems, types
from sgmg_jax.convert import sgmg as convert
from sgmg_jax.losses import matching
from sgmg_jax.losses import sgmg as losses
from sgmg_jax.models import deformable_transformer, mask_optimizer, roberta, sgmg, spectral_fusion, video_swin
from sgmg_jax.ops import dynamic_conv, positions, queries, resize

# Name (regular expression) -> scale of the official tensor's values, and whether fan-in divides it.
SPREADS = {
    r'.*(relative_position_bias_table|(word|position|token_type)_embeddings\.weight)': (0.5, False),
    r'.*(sampling_offsets\.bias|query_embed\.weight|level_embed)': (1, False),
    r'.*sampling_offsets\.weight': (0.5, True),
    r'controller.*\.layers\.2\..*': (0.05, True),
}

# The release's settings: those that are ours by another name; the values of the rest that ours has built in.
ANY = ...  # changes nothing here
BACKBONES = {'video_swin_t_p4w7': 'tiny', 'video_swin_s_p4w7': 'small', 'video_swin_b_p4w7': 'base'}
SWIN = {'embed_dim': 'channels', 'depths': 'depths', 'num_heads': 'heads'}, {
    'patch_size': [1, 4, 4], 'window_size': [8, 7, 7], 'mlp_ratio': 4, 'qkv_bias': True, 'qk_scale': None,
    'patch_norm': True, 'drop_rate': ANY, 'attn_drop_rate': ANY, 'drop_path_rate': ANY, 'use_checkpoint': ANY}
ROBERTA = {
    'vocab_size': 'vocabulary', 'hidden_size': 'channels', 'num_hidden_layers': 'layers',
    'num_attention_heads': 'heads', 'intermediate_size': 'mlp', 'max_position_embeddings': 'positions',
    'layer_norm_eps': 'epsilon'}, {
    'type_vocab_size': 1, 'pad_token_id': roberta.PADDING_ID, 'hidden_act': 'gelu', 'bos_token_id': ANY,
    'eos_token_id': ANY, 'hidden_dropout_prob': ANY, 'attention_probs_dropout_prob': ANY}
MODEL = {
    'hidden_dim': 'hidden', 'mask_dim': 'hidden', 'dim_feedforward': 'mlp', 'enc_layers': 'encoder_layers',
    'dec_layers': 'decoder_layers', 'num_queries': 'queries', 'num_feature_levels': 'levels', 'nheads': 'heads',
    'enc_n_points': 'points', 'dec_n_points': 'points', 'with_box_refine': 'box_refinement',
    'rel_coord': 'relative_coordinates'}, {'dropout': ANY}
HEADS = sgmg.SgMg.heads  # no array of a component tells how many there are


def fill(name, shape, seed=0):
    """The official tensor `name` as the golden cases have it (facts of SgMg, section 13).

    Args:
      name: in the release's state dict; both names of a shared box head give the same.
      shape: in PyTorch's layout.
      seed: the case's.

    Returns:
      float32 array of that shape.
    """
    name = convert.canonical_name(name)
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + seed))
    default = (1, True) if len(shape) > 1 else (0.1, False)
    scale, divided = next((spread for names, spread in SPREADS.items() if re.fullmatch(names, name)), default)
    if divided:
        scale /= np.sqrt(np.prod(shape[1:]))
    x = np.float32(scale) * generator.standard_normal(shape, dtype=np.float32)
    return 1 + x if len(shape) == 1 and name.endswith('weight') else x


def read(path):
    """A case's npz and JSON -> (arrays by name, meaning by name)."""
    description = path.with_suffix('.json')
    for file in (path, description):
        if not file.is_file():
            raise FileNotFoundError(f'{file.name} is missing; a case is an npz and a JSON of the same name')
    with np.load(path) as arrays:
        return dict(arrays), {'case': path.stem} | json.loads(description.read_text()) | {'folder': path.parent}


def _settings(config, field, renamed, fixed):
    """The release's settings -> ours; ValueError naming one that our model does not have."""
    ours = {}
    for name, value in config.items():
        where = f'{field}.{name} = {value!r}'
        if name in renamed:
            value = tuple(value) if isinstance(value, list) else value
            if ours.setdefault(renamed[name], value) != value:
                raise ValueError(f'{where}: in our model this is the same as another, which is {ours[renamed[name]]}')
        elif name not in fixed:
            raise ValueError(f'{where}: unknown; known are {", ".join([*renamed, *fixed])}')
        elif fixed[name] is not ANY and value != fixed[name]:
            raise ValueError(f'{where}: our model has only {fixed[name]!r}')
    return ours


def _whole_model(meaning):
    """The case's model and its parameters."""
    overrides = dict(meaning.get('config_overrides') or {})
    swin = _settings(overrides.pop('swin_cfg', None) or {}, 'config_overrides.swin_cfg', *SWIN)
    text = _settings(overrides.pop('roberta_cfg', None) or {}, 'config_overrides.roberta_cfg', *ROBERTA)
    named = re.search(r'_([tsb])_', meaning['case'])  # as in full_real_t_train
    backbone = meaning.get('backbone', named and f'video_swin_{named[1]}_p4w7')
    if backbone not in BACKBONES and len(swin) < len(SWIN[0]):
        raise ValueError(f'backbone = {backbone!r}: there is only {", ".join(BACKBONES)}')
    model = sgmg.SgMg(dataclasses.replace(video_swin.SIZES[BACKBONES.get(backbone, 'tiny')], **swin),
                      dataclasses.replace(roberta.SIZES['base'], **text), dropout=0, text_dropout=0, drop_path=0,
                      **_settings(overrides, 'config_overrides', *MODEL))
    return model, _parameters(systems.parameter_shapes(model), meaning)


def _component(at, module, meaning, *inputs, method=None):
    """A module by itself, called with `inputs` (or its `method`); `at` is its path in the whole model.

    Returns:
      its parameters, nested as in the whole model; (these parameters, inputs, Flax's options) -> its result.
    """
    shapes = jax.eval_shape(lambda key: module.init(key, *inputs, method=method)['params'], jax.random.key(0))
    for part in reversed(at.split('/')):
        shapes = {part: shapes}

    def apply(parameters, *inputs, **options):
        own = functools.reduce(dict.__getitem__, at.split('/'), parameters)
        return module.apply({'params': own}, *inputs, method=method, **options)

    return _parameters(shapes, meaning), apply


def _parameters(shapes, meaning):
    """Our parameters of the given shapes, filled by their official names."""
    weights = meaning.get('weights', {})
    seed = meaning.get('fill_seed', weights.get('fill_seed'))
    if seed is None:
        raise ValueError('fill_seed: missing in the JSON, so the weights are not known')
    official = convert.to_official(jax.tree.map(lambda x: np.broadcast_to(np.int8(0), x.shape), shapes))
    official = {name: x.shape for name, x in official.items() if name == convert.canonical_name(name)}
    named = weights.get('names')
    if isinstance(named, (dict, list)):  # otherwise a sentence: all of them
        theirs, ours = ({(convert.canonical_name(name), *(x[name] if isinstance(named, dict) else ())) for name in x
                         if not name.endswith('relative_position_index')} for x in (named, official))
        if theirs != ours:
            raise ValueError(f'weights.names: only there {sorted(theirs - ours)[:5]}, '
                             f'only in our model {sorted(ours - theirs)[:5]}')
    return convert.from_official({name: fill(name, shape, seed) for name, shape in official.items()}, shapes)


@contextlib.contextmanager
def _recorded(*names):
    """Gives a dict that fills up: path of a module (and of a method of it) -> arguments, result of its call."""
    calls = {}

    def record(call, arguments, options, context):
        result = call(*arguments, **options)
        method = () if context.method_name == '__call__' else (context.method_name,)
        name = '/'.join((*context.module.path, *method))
        if name in names:
            calls[name] = arguments, result
        return result

    with nn.intercept_methods(record):
        yield calls


def _with_gradients(function, cotangent, parameters, *inputs):
    """function(parameters, *inputs) -> (output, more). Gradients are of (output * cotangent).sum().

    Returns:
      output, more, {'grad/<official name>': of parameters}, of inputs.
    """
    def pull(cotangent, *arguments):
        output, pull_back, more = jax.vjp(function, *arguments, has_aux=True)
        return output, more, pull_back(cotangent)

    output, more, (to_parameters, *to_inputs) = jax.device_get(
        compilation.jit(pull)(cotangent, *jax.tree.map(jnp.asarray, (parameters, *inputs))))
    return output, more, _named('grad', convert.to_official(to_parameters)), to_inputs


def _named(prefix, tensors):
    return {f'{prefix}/{name}': x for name, x in tensors.items()}


def _last(x):
    """Channels."""
    return np.moveaxis(x, -3, -1)


def _first(x):
    """Channels; frames of all clips on one axis."""
    return np.moveaxis(x.reshape(-1, *x.shape[-3:]), -1, -3)


def _count(names, numbered):
    return next(i for i in range(len(names) + 1) if numbered.format(i) not in names)


def compare_resize(arrays, _):
    ours = {}
    for name in (x.removeprefix('out/') for x in arrays if x.startswith('out/')):
        size = arrays[f'out/{name}'].shape[-2:]
        if re.fullmatch(r'mask\d+_\d+x\d+', name):
            ours[name] = resize.nearest(arrays[f'in/{name.partition("_")[0]}'], size)
        elif re.fullmatch(r'(bicubic|bilinear)\d+', name):
            method = getattr(resize, name.rstrip('0123456789'))
            ours[name] = _first(method(_last(arrays[f'in/{name}']), size))
    return _named('out', ours)


def compare_positions(arrays, _):
    maps, words = (jnp.asarray(~arrays[f'in/{name}']) for name in ('mask2d', 'mask1d'))
    return {'out/pos2d': _first(positions.sine_2d(maps, arrays['out/pos2d'].shape[1])),
            'out/pos1d': np.swapaxes(positions.sine_1d(words, arrays['out/pos1d'].shape[1]), 1, 2)}


def compare_patch_kernels(arrays, _):
    features = _last(arrays['in/mask_features'])
    b, t, h, w, _ = features.shape
    kernels, points = (arrays[f'in/{name}'].reshape(b, t, -1, arrays[f'in/{name}'].shape[-1])
                       for name in ('params', 'reference_points'))

    def masks(_, features, kernels):
        coordinates = dynamic_conv.relative_coordinates(points, arrays['in/sizes'], (h, w))
        out = dynamic_conv.patch_convolution(features, coordinates, kernels)
        return out, dynamic_conv.pixel_shuffle(out)

    cotangent = _last(arrays['in/cot']).reshape(b, t, -1, h, w, dynamic_conv.P)
    out, shuffled, _, (to_features, to_kernels) = _with_gradients(masks, cotangent, {}, features, kernels)
    ours = {'out/masks': _first(out), 'grad/mask_features': _first(to_features), 'grad/params': to_kernels}
    return {name: x.reshape(arrays[name].shape) for name, x in ours.items()} | {'out/masks_shuffled': shuffled}


def compare_roberta(arrays, meaning):
    module = roberta.Roberta(roberta.Size(**_settings(meaning['config'], 'config', *ROBERTA)))
    parameters, apply = _component('text_backbone', module, meaning, _text(arrays))
    words, sentence = compilation.jit(apply)(parameters, _text(arrays))
    return {'out/last_hidden_state': words, 'out/pooler_output': sentence}


def compare_video_swin(arrays, meaning):
    same = re.match(r'as (comp_swin\w+)', str(meaning['weights']['names']))
    if 'config' not in meaning and same:
        meaning = meaning | {'config': read(meaning['folder'] / f'{same[1]}.npz')[1]['config']}
    module = video_swin.VideoSwin(video_swin.Size(**_settings(meaning['config'], 'config', *SWIN)), drop_path=0)
    frames = _last(arrays['in/x'])
    length = re.search(r'_T(\d+)', meaning['case'])  # nothing else tells clips apart
    frames = frames.reshape(-1, int(length[1]) if length else len(frames), *frames.shape[1:])
    parameters, apply = _component('video_encoder', module, meaning, frames)
    return {f'out/feat{i}': _first(x) for i, x in enumerate(compilation.jit(apply)(parameters, frames))}


def compare_spectrum(arrays, meaning):
    module = spectral_fusion.SpectrumAugmentation()
    levels = [_last(arrays[f'in/x{i}']) for i in range(_count(arrays, 'in/x{}'))]
    filters = spectral_fusion.spectrum_filters([x.shape[1:3] for x in levels])
    sides = {'pre': 'augment_before', 'post': 'augment_after'}
    shapes = jax.eval_shape(lambda key: module.init(key, levels[0], filters[0])['params'], jax.random.key(0))
    shapes = {f'{at}_{i}': shapes for at in sides.values() for i in range(len(levels))}

    def augment(parameters, *levels):
        named = {}
        for side, at in sides.items():
            augmented = []
            for i, (x, gaussian) in enumerate(zip(levels, filters)):
                with _recorded('strength_out') as calls:
                    augmented.append(module.apply({'params': parameters[f'{at}_{i}']}, x, gaussian))
                named |= {f'out/filter_{side}{i}': gaussian[None, None], f'out/{side}{i}': augmented[i],
                          f'out/coef_{side}{i}': jax.nn.sigmoid(calls['strength_out'][1])}
            levels = augmented
        return levels, named

    cotangents = [_last(arrays[f'in/cot{i}']) for i in range(len(levels))]
    _, named, gradients, to_levels = _with_gradients(augment, cotangents, _parameters(shapes, meaning), *levels)
    named = {name: _first(x) if re.match(r'out/(pre|post)', name) else x for name, x in named.items()}
    return named | gradients | {f'grad/x{i}': _first(x) for i, x in enumerate(to_levels)}


def compare_word_attention(arrays, meaning):
    pixels = arrays['in/visual'].transpose(3, 0, 1, 2, 4)  # T h w B C -> B T h w C
    words, valid = arrays['in/text'].swapaxes(0, 1), ~arrays['in/text_mask']
    where = positions.sine_1d(jnp.asarray(valid), words.shape[-1])

    def one_sentence(words):
        return spectral_fusion.Words(*(x[:, None] for x in (words, where, valid)))

    parameters, apply = _component('word_attention', spectral_fusion.WordFusion(HEADS), meaning, pixels,
                                   one_sentence(words))
    out, _, gradients, (to_pixels, to_words) = _with_gradients(
        lambda p, pixels, words: (apply(p, pixels, one_sentence(words)), None),
        arrays['in/cot'].swapaxes(0, 1).reshape(pixels.shape), parameters, pixels, words)
    return gradients | {
        'out/out': out.reshape(len(out), -1, out.shape[-1]).swapaxes(0, 1), 'out/text_pos': where.swapaxes(0, 1),
        'grad/visual': to_pixels.transpose(1, 2, 3, 0, 4), 'grad/text': to_words.swapaxes(0, 1)}


def compare_deformable_attention(arrays, meaning):
    heads, points = (arrays['out/sampling_locations'].shape[axis] for axis in (2, 4))
    module = deformable_transformer.DeformableAttention(heads, points, jnp.float32)
    at = next(iter(convert.place(next(iter(meaning['weights']['names'])), np.zeros(1)))).rsplit('/', 2)[0]
    names = 'query', 'reference_points', 'value_in'
    inputs = [arrays[f'in/{name}'] for name in names]
    rest = [tuple(map(int, size)) for size in arrays['in/spatial_shapes']], ~arrays['in/padding_mask']
    parameters, apply = _component(at, module, meaning, *inputs, *rest)

    def attend(parameters, *inputs):
        out, made = apply(parameters, *inputs, *rest, mutable='intermediates')
        return out, made['intermediates']['samples'][0]

    out, (locations, weights), gradients, to_inputs = _with_gradients(attend, arrays['in/cot'], parameters, *inputs)
    return gradients | _named('grad', dict(zip(names, to_inputs))) | {
        'out/out': out, 'out/sampling_locations': locations, 'out/attention_weights': weights}


def compare_transformer(arrays, meaning):
    names = meaning['weights']['names']
    levels = [_last(arrays[f'in/src{i}']) for i in range(_count(arrays, 'in/src{}'))]
    valid = [jnp.asarray(~arrays[f'in/mask{i}']) for i in range(len(levels))]
    embedding = arrays['in/query_embed']
    first = 'transformer.encoder.layers.0.'
    module = deformable_transformer.DeformableTransformer(
        embedding.shape[1], len(levels), mlp=names[first + 'linear1.bias'][0], heads=HEADS,
        points=names[first + 'self_attn.attention_weights.bias'][0] // HEADS // len(levels),
        encoder_layers=_count(names, 'transformer.encoder.layers.{}.norm1.bias'),
        decoder_layers=_count(names, 'transformer.decoder.layers.{}.norm1.bias'))
    where = [positions.sine_2d(x, embedding.shape[1]) for x in valid]
    content = arrays['in/tgt'].reshape(-1, *embedding.shape)
    inputs = levels, valid, where, content

    def both(module, levels, valid, where, content):
        memory = module.encode(levels, valid, where)
        return memory, *module.decode(memory, valid, content, embedding)

    parameters, apply = _component('transformer', module, meaning, *inputs, method=both)

    @compilation.jit
    def decode(parameters, *inputs):
        with _recorded('reference_points') as calls:
            memory, *decoded = apply(parameters, *inputs)
            return memory, decoded, calls['reference_points'][1]

    return _named('out', _decoded(*decode(parameters, *inputs)) | {f'pos{i}': _first(x) for i, x in enumerate(where)})


def _decoded(memory, decoded, start):
    """What the deformable transformer returns, and its queries' first references as logits [Q 2], by their names."""
    states, boxes, _ = decoded
    return {'hs': states, 'inter_references': boxes,
            'init_reference': np.broadcast_to(jax.nn.sigmoid(start), (states.shape[1], *start.shape)),
            **{f'memory{i}': _first(x) for i, x in enumerate(memory[:3])}}


def compare_mask_optimizer(arrays, meaning):
    names = 'pred_masks', 'feat8', 'feat4'
    masks, *features = (_last(arrays[f'in/{name}']) for name in names)
    parameters, apply = _component('mask_optimizer', mask_optimizer.MaskOptimizer(), meaning, masks[:, None],
                                   *features)

    def refine(parameters, masks, *features):
        out = apply(parameters, masks[:, None], *features)[:, 0]
        return out, dynamic_conv.pixel_shuffle(out)[:, None]

    out, shuffled, gradients, to_inputs = _with_gradients(
        refine, _last(arrays['in/cot']), parameters, masks, *features)
    return gradients | _named('grad', dict(zip(names, map(_first, to_inputs)))) | {
        'out/out': _first(out), 'out/shuffled': shuffled}


def compare_criterion(arrays, _):
    targets = _targets(arrays, arrays['in/masks_full'].shape[-2:])

    def total(_, scores, boxes, low, full):
        *lead, height, width = low.shape
        patches = low.reshape(*lead, height // 4, 4, width // 4, 4).swapaxes(-2, -3)
        proposals = types.Proposals(scores[..., 0], boxes, patches.reshape(*lead, height // 4, width // 4, -1))
        query = matching.match(proposals, targets)
        chosen = types.Predictions(None, queries.take_query(boxes, query), full)
        named = losses.loss_terms(proposals, query, chosen, queries.take_query(low, query), targets)
        value = losses.total_loss(named)
        cost = matching.matching_cost(proposals, targets)
        return value, (named, {'total': value, 'matched_query': query, 'cost': cost})

    names = 'pred_logits', 'pred_boxes', 'masks_low_all', 'masks_full'
    _, (named, ours), _, gradients = _with_gradients(
        total, np.float32(1), {}, *(arrays[f'in/{name}'] for name in names))
    named = {f'loss_{name}' + ('' if i == len(values) - 1 else f'_{i}'): value
             for name, values in named.items() for i, value in enumerate(values)}
    return _named('out', ours) | _losses(named) | _named('grad', dict(zip(names, gradients)))


def _losses(named):
    return {'out/loss/' + name.replace('loss_class', 'loss_ce').replace('loss_box', 'loss_bbox'): value
            for name, value in named.items()}


def _text(arrays):
    return types.Text(arrays['in/input_ids'].astype(np.int32), arrays['in/attention_mask'] == 1)


def _clip(arrays, multiple):
    """The case's clips, padded together."""
    videos = [_last(arrays[f'in/video{i}']) for i in range(len(arrays['in/sizes']))]
    height, width = (-(-max(x.shape[axis] for x in videos) // multiple) * multiple for axis in (1, 2))
    frames = np.zeros((len(videos), len(videos[0]), height, width, 3), np.float32)
    valid = np.zeros(frames.shape[:4], bool)
    for i, video in enumerate(videos):
        frames[i, :, :video.shape[1], :video.shape[2]] = video
        valid[i, :, :video.shape[1], :video.shape[2]] = True
    return types.Clip(frames, valid, arrays['in/sizes'], arrays.get('in/valid_indices'))


def _targets(arrays, size):
    """types.Targets, their masks zero-padded to `size`."""
    count = _count(arrays, 'in/tgt{}_masks')
    masks = np.zeros((count, len(arrays['in/tgt0_masks']), *size), bool)
    for i in range(count):
        mask = arrays[f'in/tgt{i}_masks']
        masks[i, :, :mask.shape[1], :mask.shape[2]] = mask
    boxes, present = (np.stack([arrays[f'in/tgt{i}_{name}'] for i in range(count)]) for name in ('boxes', 'valid'))
    sizes = np.array([arrays[f'in/tgt{i}_masks'].shape[1:] for i in range(count)])
    return types.Targets(masks, boxes, present == 1, sizes, np.ones(count, bool))


RECORDED = ('video_encoder', 'encode_text', 'transformer/encode', 'transformer/decode', 'transformer/reference_points',
            'mask_optimizer')


def compare_evaluation(arrays, meaning, every_query=False):
    """every_query: all are refined, as for A2D-Sentences, and not only the best (facts of SgMg, section 9)."""
    model, parameters = _whole_model(meaning)

    def pick(x, query=None):
        """[D N T Q ...] -> [K N T ...]"""
        return jnp.moveaxis(x[-1], 2, 0) if every_query else queries.take_query(x, query)

    def steps(module, clip, text):
        if not every_query:
            return module(clip, text, queries.best_query)
        video = module.encode_video(clip)
        proposals = module.segment(video, module.encode_text(text))
        chosen = [pick(x) for x in (proposals.scores, proposals.boxes, proposals.patch_masks)]
        return proposals, queries.best_query(proposals), types.Predictions(
            *chosen[:2], module.optimize(chosen[2], video))

    @compilation.jit
    def forward(parameters, clip, text):
        with _recorded(*RECORDED) as calls:
            return model.apply({'params': parameters}, clip, text, method=steps), calls

    clip = _clip(arrays, multiple=16)
    (proposals, query, chosen), calls = jax.device_get(forward(parameters, clip, _text(arrays)))
    ours = {'pred_logits': chosen.scores[..., None], 'pred_boxes': chosen.boxes, 'pred_masks': chosen.masks}
    points = calls['transformer/decode'][1][2].reshape(*proposals.boxes.shape[:-1], 2)
    if len(points) > 1:
        ours['reference_points'] = pick(points[:-1], query)  # the release gives those of the last layer but one
    ours = {name: np.moveaxis(x, 0, 2) for name, x in ours.items()}
    ours['all_query_logits'] = proposals.scores[-1][..., None]
    return {'best_query': query[0]} | _named('out', ours | _stages(calls, clip, arrays))


def _stages(calls, clip, arrays):
    """What the model computes on the way, by the release's names."""
    (levels, masks, where, *_), memory = calls['transformer/encode']
    _, decoded = calls['transformer/decode']
    _, text = calls['encode_text']
    (patches, *_), _ = calls['mask_optimizer']
    ours = {'text_word': text.words, 'text_mask': ~text.valid, 'text_sentence': text.sentence,
            'mso_in': _first(patches[:, 0]), **_decoded(memory, decoded, calls['transformer/reference_points'][1])}
    for i, (x, valid, position) in enumerate(zip(levels, masks, where)):
        ours |= {f'src{i}': _first(x), f'srcmask{i}': ~valid, f'srcpos{i}': _first(position)}
    for i, x in enumerate(calls['video_encoder'][1]):
        padding = ~resize.nearest(clip.valid, x.shape[2:4])
        # Whether the frames around the annotated ones are meant can only be told by their number.
        if clip.annotated is not None and len(arrays.get(f'out/backbone{i}', ())) == len(x):
            x, padding = (y[np.arange(len(y)), clip.annotated, None] for y in (x, padding))
        ours |= {f'backbone{i}': _first(x), f'backbone_mask{i}': padding.reshape(-1, *padding.shape[2:])}
    return ours


def compare_training(arrays, meaning):
    """Every dropout is 0 and the text encoder frozen (facts of SgMg, section 10)."""
    model, parameters = _whole_model(meaning)
    clip = _clip(arrays, multiple=32)
    frozen = {'text_backbone': parameters.pop('text_backbone')}

    def total(parameters, frozen, clip, text, targets):
        with _recorded(*RECORDED) as calls:
            outputs = model.apply({'params': parameters | frozen}, clip, text,
                                  lambda proposals: matching.match(proposals, targets), train=True)
        proposals, query, chosen = outputs
        value, named = losses.loss(outputs, targets)
        low = dynamic_conv.pixel_shuffle(queries.take_query(proposals.patch_masks, query)[-1])
        ours = {'total': value, 'matched_query': query, 'cost': matching.matching_cost(proposals, targets),
                'pred_masks': chosen.masks[-1], 'pred_masks_low': low}
        for i, (scores, boxes) in enumerate(zip(proposals.scores, proposals.boxes)):
            layer = f'aux{i}_' if i < len(proposals.scores) - 1 else ''
            ours |= {f'{layer}pred_logits': scores[..., None], f'{layer}pred_boxes': boxes}
        return value, (ours, named, calls)

    gradients, (ours, named, calls) = jax.device_get(compilation.jit(jax.grad(total, has_aux=True))(
        parameters, frozen, clip, _text(arrays), _targets(arrays, clip.frames.shape[2:4])))
    gradients = convert.to_official(gradients)
    norms = {name: np.sqrt(np.square(x, dtype=np.float64).sum()) for name, x in gradients.items()}
    ours['grad_total_norm'] = np.sqrt(sum(
        norm ** 2 for name, norm in norms.items() if name == convert.canonical_name(name)))
    return (_named('out', ours | _stages(calls, clip, arrays)) | _losses(named)
            | _named('grad', gradients) | _named('norm', norms))


COMPARISONS = {  # by the case's name
    'comp_cpk*': compare_patch_kernels,
    'comp_criterion*': compare_criterion,
    'comp_fusion*': compare_word_attention,
    'comp_lfm*': compare_spectrum,
    'comp_msda*': compare_deformable_attention,
    'comp_mso*': compare_mask_optimizer,
    'comp_posenc*': compare_positions,
    'comp_resize*': compare_resize,
    'comp_roberta*': compare_roberta,
    'comp_swin*': compare_video_swin,
    'comp_transformer*': compare_transformer,
    'full_*_eval_ytvos*': compare_evaluation,
    'full_*_eval_a2d*': functools.partial(compare_evaluation, every_query=True),
    'full_*_train*': compare_training,
}
