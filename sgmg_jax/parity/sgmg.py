"""Our SgMg's results for golden cases of the authors' release, under the release's names and in its layouts.

A comparison takes a case's arrays and its JSON and returns every `out/`, `grad/` and `norm/` array it can compute.

Axis letters: B clips, T frames, h w a feature map, C channels, Q queries, D decoder layers,
K selected queries or layers.
"""

from collections.abc import Callable
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np

from sgmg_jax import compilation, systems, types
from sgmg_jax.convert import names as convert
from sgmg_jax.losses import matching, terms
from sgmg_jax.losses import sgmg as losses
from sgmg_jax.models import deformable_transformer, mask_optimizer, roberta, sgmg, spectral_fusion, video_swin
from sgmg_jax.ops import dynamic_conv, positions, queries, resize
from sgmg_jax.parity import cases
from sgmg_jax.parity.cases import Arrays, Meaning, Results

MODEL: cases.Settings = (
    {
        'hidden_dim': 'hidden',
        'mask_dim': 'hidden',
        'dim_feedforward': 'mlp',
        'enc_layers': 'encoder_layers',
        'dec_layers': 'decoder_layers',
        'num_queries': 'queries',
        'num_feature_levels': 'levels',
        'nheads': 'heads',
        'enc_n_points': 'points',
        'dec_n_points': 'points',
        'with_box_refine': 'box_refinement',
        'rel_coord': 'relative_coordinates',
    },
    {'dropout': cases.ANY},
)


def _whole_model(meaning):
    """The case's model and its parameters."""
    encoders, overrides = cases.encoders(meaning)
    model = sgmg.SgMg(
        *encoders, dropout=0.0, text_dropout=0.0, drop_path=0.0, **cases.settings(overrides, 'config_overrides', *MODEL)
    )
    return model, cases.parameters(systems.parameter_shapes(model), meaning)


def compare_resize(arrays: Arrays, _: Meaning) -> Results:
    ours = {}
    for name in (x.removeprefix('out/') for x in arrays if x.startswith('out/')):
        size = arrays[f'out/{name}'].shape[-2:]
        if re.fullmatch(r'mask\d+_\d+x\d+', name):
            ours[name] = resize.nearest(arrays[f'in/{name.partition("_")[0]}'], size)
        elif re.fullmatch(r'(bicubic|bilinear)\d+', name):
            method = getattr(resize, name.rstrip('0123456789'))
            ours[name] = cases.first(method(cases.last(arrays[f'in/{name}']), size))
    return cases.named('out', ours)


def compare_positions(arrays: Arrays, _: Meaning) -> Results:
    maps, words = (jnp.asarray(~arrays[f'in/{name}']) for name in ('mask2d', 'mask1d'))
    return {
        'out/pos2d': cases.first(positions.sine_2d(maps, arrays['out/pos2d'].shape[1])),
        'out/pos1d': np.swapaxes(positions.sine_1d(words, arrays['out/pos1d'].shape[1]), 1, 2),
    }


def compare_patch_kernels(arrays: Arrays, _: Meaning) -> Results:
    features = cases.last(arrays['in/mask_features'])
    b, t, h, w, _ = features.shape
    kernels, points = (
        arrays[f'in/{name}'].reshape(b, t, -1, arrays[f'in/{name}'].shape[-1])
        for name in ('params', 'reference_points')
    )

    def masks(_, features, kernels):
        coordinates = dynamic_conv.relative_coordinates(points, arrays['in/sizes'], (h, w))
        out = dynamic_conv.patch_convolution(features, coordinates, kernels)
        return out, dynamic_conv.pixel_shuffle(out)

    cotangent = cases.last(arrays['in/cot']).reshape(b, t, -1, h, w, dynamic_conv.P)
    out, shuffled, _, (to_features, to_kernels) = cases.with_gradients(masks, cotangent, {}, features, kernels)
    ours = {'out/masks': cases.first(out), 'grad/mask_features': cases.first(to_features), 'grad/params': to_kernels}
    return {name: x.reshape(arrays[name].shape) for name, x in ours.items()} | {'out/masks_shuffled': shuffled}


def compare_roberta(arrays: Arrays, meaning: Meaning) -> Results:
    module = roberta.Roberta(roberta.Size(**cases.settings(meaning['config'], 'config', *cases.ROBERTA)))
    parameters, apply = cases.component('text_backbone', module, meaning, cases.text(arrays))
    words, sentence = compilation.jit(apply)(parameters, cases.text(arrays))
    return {'out/last_hidden_state': words, 'out/pooler_output': sentence}


def compare_video_swin(arrays: Arrays, meaning: Meaning) -> Results:
    same = re.match(r'as (comp_swin\w+)', str(meaning['weights']['names']))
    if 'config' not in meaning and same:
        meaning = {**meaning, 'config': cases.read(meaning['folder'] / f'{same[1]}.npz')[1]['config']}
    size = video_swin.Size(**cases.settings(meaning['config'], 'config', *cases.SWIN))
    module = video_swin.VideoSwin(size, drop_path=0.0)
    frames = cases.last(arrays['in/x'])
    length = re.search(r'_T(\d+)', meaning['case'])  # nothing else gives a clip's length
    frames = frames.reshape(-1, int(length[1]) if length else len(frames), *frames.shape[1:])
    parameters, apply = cases.component('video_encoder', module, meaning, frames)
    return {f'out/feat{i}': cases.first(x) for i, x in enumerate(compilation.jit(apply)(parameters, frames))}


def compare_spectrum(arrays: Arrays, meaning: Meaning) -> Results:
    module = spectral_fusion.SpectrumAugmentation()
    levels = [cases.last(arrays[f'in/x{i}']) for i in range(cases.count(arrays, 'in/x{}'))]
    filters = spectral_fusion.spectrum_filters([x.shape[1:3] for x in levels])
    sides = {'pre': 'augment_before', 'post': 'augment_after'}
    shapes = jax.eval_shape(lambda key: module.init(key, levels[0], filters[0])['params'], jax.random.key(0))
    shapes = {f'{at}_{i}': shapes for at in sides.values() for i in range(len(levels))}

    def augment(parameters, *levels):
        named = {}
        for side, at in sides.items():
            augmented = []
            for i, (x, gaussian) in enumerate(zip(levels, filters)):
                with cases.recorded('strength_out') as calls:
                    augmented.append(module.apply({'params': parameters[f'{at}_{i}']}, x, gaussian))
                named |= {
                    f'out/filter_{side}{i}': gaussian[None, None],
                    f'out/{side}{i}': augmented[i],
                    f'out/coef_{side}{i}': jax.nn.sigmoid(calls['strength_out'][1]),
                }
            levels = augmented
        return levels, named

    cotangents = [cases.last(arrays[f'in/cot{i}']) for i in range(len(levels))]
    parameters = cases.parameters(shapes, meaning)
    _, named, gradients, to_levels = cases.with_gradients(augment, cotangents, parameters, *levels)
    named = {name: cases.first(x) if re.match(r'out/(pre|post)', name) else x for name, x in named.items()}
    return named | gradients | {f'grad/x{i}': cases.first(x) for i, x in enumerate(to_levels)}


def compare_word_attention(arrays: Arrays, meaning: Meaning) -> Results:
    pixels = arrays['in/visual'].transpose(3, 0, 1, 2, 4)  # T h w B C -> B T h w C
    words, valid = arrays['in/text'].swapaxes(0, 1), ~arrays['in/text_mask']
    where = positions.sine_1d(jnp.asarray(valid), words.shape[-1])

    def one_sentence(words):
        return spectral_fusion.Words(*(x[:, None] for x in (words, where, valid)))

    parameters, apply = cases.component(
        'word_attention', spectral_fusion.WordFusion(cases.HEADS), meaning, pixels, one_sentence(words)
    )
    out, _, gradients, (to_pixels, to_words) = cases.with_gradients(
        lambda p, pixels, words: (apply(p, pixels, one_sentence(words)), None),
        arrays['in/cot'].swapaxes(0, 1).reshape(pixels.shape),
        parameters,
        pixels,
        words,
    )
    return gradients | {
        'out/out': out.reshape(len(out), -1, out.shape[-1]).swapaxes(0, 1),
        'out/text_pos': where.swapaxes(0, 1),
        'grad/visual': to_pixels.transpose(1, 2, 3, 0, 4),
        'grad/text': to_words.swapaxes(0, 1),
    }


def compare_deformable_attention(arrays: Arrays, meaning: Meaning) -> Results:
    heads, points = (arrays['out/sampling_locations'].shape[axis] for axis in (2, 4))
    module = deformable_transformer.DeformableAttention(heads, points, jnp.float32)
    at = next(iter(convert.place(next(iter(meaning['weights']['names'])), np.zeros(1)))).rsplit('/', 2)[0]
    names = 'query', 'reference_points', 'value_in'
    inputs = [arrays[f'in/{name}'] for name in names]
    rest = [tuple(map(int, size)) for size in arrays['in/spatial_shapes']], ~arrays['in/padding_mask']
    parameters, apply = cases.component(at, module, meaning, *inputs, *rest)

    def attend(parameters, *inputs):
        out, made = apply(parameters, *inputs, *rest, mutable='intermediates')
        return out, made['intermediates']['samples'][0]

    out, (locations, weights), gradients, to_inputs = cases.with_gradients(
        attend, arrays['in/cot'], parameters, *inputs
    )
    return (
        gradients
        | cases.named('grad', dict(zip(names, to_inputs)))
        | {'out/out': out, 'out/sampling_locations': locations, 'out/attention_weights': weights}
    )


def compare_transformer(arrays: Arrays, meaning: Meaning) -> Results:
    names = meaning['weights']['names']
    levels = [cases.last(arrays[f'in/src{i}']) for i in range(cases.count(arrays, 'in/src{}'))]
    valid = [jnp.asarray(~arrays[f'in/mask{i}']) for i in range(len(levels))]
    embedding = arrays['in/query_embed']
    first = 'transformer.encoder.layers.0.'
    module = deformable_transformer.DeformableTransformer(
        embedding.shape[1],
        len(levels),
        mlp=names[first + 'linear1.bias'][0],
        heads=cases.HEADS,
        points=names[first + 'self_attn.attention_weights.bias'][0] // cases.HEADS // len(levels),
        encoder_layers=cases.count(names, 'transformer.encoder.layers.{}.norm1.bias'),
        decoder_layers=cases.count(names, 'transformer.decoder.layers.{}.norm1.bias'),
    )
    where = [positions.sine_2d(x, embedding.shape[1]) for x in valid]
    content = arrays['in/tgt'].reshape(-1, *embedding.shape)
    inputs = levels, valid, where, content

    def both(module, levels, valid, where, content):
        memory = module.encode(levels, valid, where)
        return memory, *module.decode(memory, valid, content, embedding)

    parameters, apply = cases.component('transformer', module, meaning, *inputs, method=both)

    @compilation.jit
    def decode(parameters, *inputs):
        with cases.recorded('reference_points') as calls:
            memory, *decoded = apply(parameters, *inputs)
            return memory, decoded, calls['reference_points'][1]

    ours = cases.decoded(*decode(parameters, *inputs)) | {f'pos{i}': cases.first(x) for i, x in enumerate(where)}
    return cases.named('out', ours)


def compare_mask_optimizer(arrays: Arrays, meaning: Meaning) -> Results:
    names = 'pred_masks', 'feat8', 'feat4'
    masks, *features = (cases.last(arrays[f'in/{name}']) for name in names)
    parameters, apply = cases.component(
        'mask_optimizer', mask_optimizer.MaskOptimizer(), meaning, masks[:, None], *features
    )

    def refine(parameters, masks, *features):
        out = apply(parameters, masks[:, None], *features)[:, 0]
        return out, dynamic_conv.pixel_shuffle(out)[:, None]

    out, shuffled, gradients, to_inputs = cases.with_gradients(
        refine, cases.last(arrays['in/cot']), parameters, masks, *features
    )
    return (
        gradients
        | cases.named('grad', dict(zip(names, map(cases.first, to_inputs))))
        | {'out/out': cases.first(out), 'out/shuffled': shuffled}
    )


def compare_criterion(arrays: Arrays, _: Meaning) -> Results:
    targets = _targets(arrays, arrays['in/masks_full'].shape[-2:])

    def total(_, scores, boxes, low, full):
        *lead, height, width = low.shape
        patches = low.reshape(*lead, height // 4, 4, width // 4, 4).swapaxes(-2, -3)
        proposals = types.Proposals(scores[..., 0], boxes, patches.reshape(*lead, height // 4, width // 4, -1))
        query = matching.match(proposals, targets)
        chosen = types.Predictions(*(queries.take_query(x, query) for x in (proposals.scores, boxes)), full)
        named = losses.loss_terms(proposals, query, chosen, queries.take_query(low, query), targets)
        value, _ = terms.weighted(named, losses.WEIGHTS)
        cost = matching.matching_cost(proposals, targets)
        return value, (named, {'total': value, 'matched_query': query, 'cost': cost})

    names = 'pred_logits', 'pred_boxes', 'masks_low_all', 'masks_full'
    _, (named, ours), _, gradients = cases.with_gradients(
        total, np.float32(1), {}, *(arrays[f'in/{name}'] for name in names)
    )
    named = {
        f'loss_{name}' + ('' if i == len(values) - 1 else f'_{i}'): value
        for name, values in named.items()
        for i, value in enumerate(values)
    }
    return cases.named('out', ours) | _losses(named) | cases.named('grad', dict(zip(names, gradients)))


def _losses(named):
    return {
        'out/loss/' + name.replace('loss_class', 'loss_ce').replace('loss_box', 'loss_bbox'): value
        for name, value in named.items()
    }


def _targets(arrays, size):
    """types.Targets, their masks zero-padded to `size`."""
    count = cases.count(arrays, 'in/tgt{}_masks')
    masks = np.zeros((count, len(arrays['in/tgt0_masks']), *size), bool)
    for i in range(count):
        mask = arrays[f'in/tgt{i}_masks']
        masks[i, :, : mask.shape[1], : mask.shape[2]] = mask
    boxes, present = (np.stack([arrays[f'in/tgt{i}_{name}'] for i in range(count)]) for name in ('boxes', 'valid'))
    sizes = np.array([arrays[f'in/tgt{i}_masks'].shape[1:] for i in range(count)])
    return types.Targets(masks, boxes, present == 1, sizes, np.ones(count, bool))


RECORDED = (
    'video_encoder',
    'encode_text',
    'transformer/encode',
    'transformer/decode',
    'transformer/reference_points',
    'mask_optimizer',
)


def compare_evaluation(arrays: Arrays, meaning: Meaning, every_query: bool = False) -> Results:
    """every_query: refine all queries, as for A2D-Sentences, not only the best."""
    model, parameters = _whole_model(meaning)

    def pick(x, query=None):
        """[D N T Q ...] -> [K N T ...]"""
        return jnp.moveaxis(x[-1], 2, 0) if every_query else queries.take_query(x, query)

    def steps(module, clip, text):
        if not every_query:
            return module(clip, text, queries.best_query)
        video = module.encode_video(clip)
        proposals = module.segment(video, module.encode_text(text))
        chosen = [pick(x) for x in (proposals.scores, proposals.boxes, proposals.mask_logits)]
        predictions = types.Predictions(*chosen[:2], module.optimize(chosen[2], video))
        return proposals, queries.best_query(proposals), predictions

    @compilation.jit
    def forward(parameters, clip, text):
        with cases.recorded(*RECORDED) as calls:
            return model.apply({'params': parameters}, clip, text, method=steps), calls

    clip = cases.clip(arrays, multiple=16)
    (proposals, query, chosen), calls = jax.device_get(forward(parameters, clip, cases.text(arrays)))
    ours = {'pred_logits': chosen.scores[..., None], 'pred_boxes': chosen.boxes, 'pred_masks': chosen.masks}
    points = calls['transformer/decode'][1][2].reshape(*proposals.boxes.shape[:-1], 2)
    if len(points) > 1:
        ours['reference_points'] = pick(points[:-1], query)  # the release returns those of the second-last layer
    ours = {name: np.moveaxis(x, 0, 2) for name, x in ours.items()}
    ours['all_query_logits'] = proposals.scores[-1][..., None]
    return {'best_query': query[0]} | cases.named('out', ours | _stages(calls, clip, arrays))


def compare_training(arrays: Arrays, meaning: Meaning) -> Results:
    """All dropouts are 0 and the text encoder is frozen."""
    model, parameters = _whole_model(meaning)
    clip = cases.clip(arrays, multiple=32)
    frozen = {'text_backbone': parameters.pop('text_backbone')}

    def total(parameters, frozen, clip, text, targets):
        with cases.recorded(*RECORDED) as calls:
            outputs = model.apply(
                {'params': parameters | frozen},
                clip,
                text,
                lambda proposals: matching.match(proposals, targets),
                train=True,
            )
        proposals, query, chosen = outputs
        value, named = losses.loss(outputs, targets)
        low = dynamic_conv.pixel_shuffle(queries.take_query(proposals.mask_logits, query)[-1])
        ours = {
            'total': value,
            'matched_query': query,
            'cost': matching.matching_cost(proposals, targets),
            'pred_masks': chosen.masks[-1],
            'pred_masks_low': low,
        }
        for i, (scores, boxes) in enumerate(zip(proposals.scores, proposals.boxes)):
            layer = f'aux{i}_' if i < len(proposals.scores) - 1 else ''
            ours |= {f'{layer}pred_logits': scores[..., None], f'{layer}pred_boxes': boxes}
        return value, (ours, named, calls)

    gradients, (ours, named, calls) = jax.device_get(
        compilation.jit(jax.grad(total, has_aux=True))(
            parameters, frozen, clip, cases.text(arrays), _targets(arrays, clip.frames.shape[2:4])
        )
    )
    return (
        cases.named('out', ours | _stages(calls, clip, arrays))
        | _losses(named)
        | cases.gradients(convert.to_official(gradients))
    )


def _stages(calls, clip, arrays):
    (patches, *_), _ = calls['mask_optimizer']
    return cases.stages(calls, clip, arrays) | {'mso_in': cases.first(patches[:, 0])}


COMPARISONS: dict[str, Callable[..., Results]] = {  # by the case's name
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
