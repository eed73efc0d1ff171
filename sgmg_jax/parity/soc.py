"""Our SOC's results for golden cases of the authors' release; sgmg.py has SgMg's, cases.py the shared helpers.

The release puts time before clips, [T B ...], and mixes up clips of several frames before the object cluster (facts
of SOC, 5.5). The comparisons reproduce that, except for arrays that the cases call unmixed.

Axis letters: B clips, T frames, h w a feature map, C channels, Q queries, D decoder layers, M trajectories of a clip.
"""

from collections.abc import Callable
import contextlib

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sgmg_jax import compilation, systems
from sgmg_jax.convert import names as convert
from sgmg_jax.losses import soc as losses
from sgmg_jax.losses import terms
from sgmg_jax.models import mask_features, multimodal_fusion, object_cluster, soc
from sgmg_jax.models.spectral_fusion import Words
from sgmg_jax.ops import dynamic_conv, masks, positions, queries, resize
from sgmg_jax.parity import cases
from sgmg_jax.parity.cases import Arrays, Meaning, Results

TRANSFORMER: cases.Settings = (
    {
        'd_model': 'hidden',
        'dim_feedforward': 'mlp',
        'enc_layers': 'encoder_layers',
        'dec_layers': 'decoder_layers',
        'num_queries': 'queries',
    },
    {},
)
CLUSTER: cases.Settings = (
    {
        'input_dim': 'hidden',
        'num_queries': 'queries',
        'num_frame_queries': 'queries',
        'window_size': 'cluster_window',
        'enc_layers': 'cluster_encoder_layers',
        'dec_layers': 'cluster_decoder_layers',
        'dim_feedforward': 'cluster_mlp',
    },
    {'num_frames': cases.ANY, 'nheads': 8},
)
TERMS = {'class': 'cls', 'box': 'bbox', 'giou': 'giou', 'mask': 'sigmoid_focal', 'dice': 'dice', 'contrast': 'con'}


def _by_clip(x):
    """[D T B ...] -> [D B T ...] and back."""
    return jnp.swapaxes(x, 1, 2)


def compare_fusion(arrays: Arrays, meaning: Meaning) -> Results:
    pixels_valid, valid = ~arrays['in/visual_mask'], ~arrays['in/text_mask']
    pixels = arrays['in/visual'].swapaxes(0, 1).reshape(*pixels_valid.shape, -1)
    words = arrays['in/text'].swapaxes(0, 1)
    where = positions.sine_1d(jnp.asarray(valid), words.shape[-1])
    module = multimodal_fusion.MultimodalFusion(cases.HEADS)

    def inputs(pixels, words):
        return [pixels] * 3, [pixels_valid] * 3, Words(*(x[:, None] for x in (words, where, valid)))

    parameters, apply = cases.component('fusion', module, meaning, *inputs(pixels, words))

    def fuse(parameters, pixels, words):
        with cases.recorded('to_language') as calls:
            fused, guidance = apply(parameters, *inputs(pixels, words))
        return (fused[2], calls['to_language'][1], guidance), None

    cotangents = (
        arrays['in/cot_visual'].swapaxes(0, 1).reshape(pixels.shape),
        arrays['in/cot_text'].swapaxes(0, 1),
        arrays['in/cot_guidance'],
    )
    (vision, language, guidance), _, gradients, (to_pixels, to_words) = cases.with_gradients(
        fuse, cotangents, parameters, pixels, words
    )

    def flat(x):
        return x.reshape(len(x), -1, x.shape[-1]).swapaxes(0, 1)

    return gradients | {
        'out/visual': flat(vision),
        'out/text': flat(language),
        'out/guidance': guidance,
        'grad/visual': flat(to_pixels),
        'grad/text': flat(to_words),
    }


def _mixed(x):
    """[D B T ...] in the release's mixed order."""
    return jnp.swapaxes(x, 1, 2).reshape(x.shape)


def compare_object_cluster(arrays: Arrays, meaning: Meaning) -> Results:
    config = meaning['config']
    frame_queries, sentence = (arrays[f'in/{name}'] for name in ('frame_query', 'language_query'))
    module = object_cluster.ObjectCluster(
        config['num_queries'],
        config['enc_layers'],
        config['dec_layers'],
        config['nheads'],
        config['dim_feedforward'],
        config['window_size'],
        dropout=0.0,
    )
    train = meaning['train']

    def inputs(frame_queries, sentence):
        x = _mixed(jnp.swapaxes(frame_queries, 1, 2))
        return x if train else x[-1:], np.ones(x.shape[1:3], bool), sentence

    parameters, apply = cases.component('object_cluster', module, meaning, *inputs(frame_queries, sentence))
    out, made, gradients, (to_queries, to_sentence) = cases.with_gradients(
        lambda p, *x: apply(p, *inputs(*x), train=train, mutable='intermediates'),
        arrays['in/cot'],
        parameters,
        frame_queries,
        sentence,
    )
    encoded = made['intermediates']['encoded'][0]  # N D T Q C
    encoded = encoded.transpose(2, 3, 1, 0, 4).reshape(*encoded.shape[2:4], -1, encoded.shape[-1])
    return gradients | {
        'out/out': out,
        'out/encoded': encoded[: frame_queries.shape[1]],
        'out/encoded_with_padding': encoded,
        'grad/frame_query': to_queries,
        'grad/language_query': to_sentence,
    }


def compare_feature_pyramid(arrays: Arrays, meaning: Meaning) -> Results:
    names = 'feat8', 'feat16', 'feat32', 'feat4'
    inputs = [cases.last(arrays[f'in/{name}']) for name in names]
    parameters, apply = cases.component(
        'feature_pyramid', mask_features.FeaturePyramid(), meaning, inputs[:3], inputs[3]
    )
    out, _, gradients, to_inputs = cases.with_gradients(
        lambda p, *x: (apply(p, x[:3], x[3]), None), cases.last(arrays['in/cot']), parameters, *inputs
    )
    gradients |= cases.named('grad', dict(zip(names, map(cases.first, to_inputs))))
    return gradients | {'out/out': cases.first(out)}


def compare_mask_head(arrays: Arrays, _: Meaning) -> Results:
    features = np.moveaxis(arrays['in/mask_features'], 2, -1)
    clips, frames, *size, _ = features.shape
    kernels, points, cotangent = (
        x.reshape(clips, frames, -1, *x.shape[2:])
        for x in (arrays['in/params'], arrays['in/reference_points'], arrays['in/cot'])
    )

    def head(_, features, kernels, points):
        coordinates = dynamic_conv.relative_coordinates(points, arrays['in/sizes'], size, soc.MASK_STRIDE)
        return dynamic_conv.patch_convolution(features, coordinates, kernels, soc.MASK_LAYERS)[..., 0], None

    out, _, _, (to_features, *rest) = cases.with_gradients(head, cotangent, {}, features, kernels, points)
    return {
        'out/masks': out.reshape(arrays['out/masks'].shape),
        'grad/mask_features': np.moveaxis(to_features, -1, 2),
        **{
            f'grad/{name}': x.reshape(arrays[f'in/{name}'].shape)
            for name, x in zip(('params', 'reference_points'), rest)
        },
    }


def _trajectories(arrays, size):
    """losses.Trajectories of the case's targets, as many for each clip; masks zero-padded to `size`."""
    targets = [
        {name: arrays[f'in/tgt{i}_{name}'] for name in ('masks', 'boxes', 'visible', 'referred', 'label')}
        for i in range(cases.count(arrays, 'in/tgt{}_masks'))
    ]
    most = max(len(x['masks']) for x in targets)

    def filled(x, shape):
        return np.pad(x, [(0, n - m) for n, m in zip(shape, x.shape)])

    frames = targets[0]['masks'].shape[1]
    return losses.Trajectories(
        masks=np.stack([filled(x['masks'], (most, frames, *size)) > 0 for x in targets]),
        boxes=np.stack([filled(x['boxes'], (most, frames, 4)) for x in targets]),
        real=np.stack([np.arange(most) < len(x['masks']) for x in targets]),
        referred=np.stack([x['referred'] for x in targets]),
        visible=np.stack([x['visible'] for x in targets]) > 0,
        label=np.stack([x['label'] for x in targets]),
        counted=np.ones((len(targets), *size), bool),
    )


def _criterion(scores, boxes, mask_logits, alignment, trajectories):
    """The loss of the matched queries; and its terms, by the release's names."""
    query, cost = losses.match_trajectories(scores, boxes, mask_logits, trajectories)
    named = losses.loss_terms(scores, boxes, mask_logits, alignment, query, trajectories)
    total, logged = terms.weighted(named, losses.WEIGHTS['released'])
    real = np.asarray(trajectories.real).ravel()
    rows = [x.reshape(len(x), -1, x.shape[-1])[:, real] for x in (query[..., None], jnp.swapaxes(cost, 2, 3))]
    ours = {'total': total, 'query_of_trajectory': rows[0][..., 0], 'cost': jnp.swapaxes(rows[1], 1, 2)}
    for name, value in logged.items():
        _, term, *layer = name.split('_')
        ours['_'.join(['loss/loss', TERMS[term], *layer])] = value
    return total, ours


def compare_criterion(arrays: Arrays, _: Meaning) -> Results:
    names = 'pred_cls', 'pred_boxes', 'pred_masks', 'pred_logit', 'text_sentence_feature'
    sizes = [arrays[f'in/tgt{i}_masks'].shape[-2:] for i in range(cases.count(arrays, 'in/tgt{}_masks'))]
    trajectories = _trajectories(arrays, tuple(np.max(sizes, axis=0)))

    def total(_, scores, boxes, mask_logits, video_queries, guidance):
        scores, boxes, mask_logits = (jnp.swapaxes(x, 1, 2) for x in (scores, boxes, mask_logits))
        aligned = soc.alignment(video_queries, guidance, 'channels')
        value, ours = _criterion(scores, boxes, mask_logits, aligned, trajectories)
        of_clips = [
            losses.costs(
                scores, boxes, mask_logits, jax.tree.map(lambda x, i=i: jnp.broadcast_to(x[i], x.shape), trajectories)
            )
            for i in range(len(trajectories.real))
        ]
        for name in of_clips[0]:  # all queries of the batch against the trajectories of each clip in turn
            ours[f'cost_{name}'.replace('class', 'cls')] = jnp.concatenate(
                [x[name] if name == 'class' else x[name][..., real] for x, real in zip(of_clips, trajectories.real)], -1
            )
        return value, ours | {'cost_con_unused': -jax.nn.softmax(aligned * guidance.shape[-1])[..., None]}

    _, ours, _, gradients = cases.with_gradients(total, np.float32(1), {}, *(arrays[f'in/{name}'] for name in names))
    ours['cost_cls'] = ours['cost_cls'][
        ..., : arrays['out/cost_cls'].shape[-1]
    ]  # with one frame, all columns are equal
    return cases.named('out', ours) | cases.named('grad', dict(zip(names, gradients)))


def compare_postprocess(arrays: Arrays, _: Meaning) -> Results:
    """The post-processing of the release's scripts, with our functions."""
    logits, scores = (np.moveaxis(arrays[f'in/{name}'], 0, 2) for name in ('pred_masks', 'pred_cls'))  # B Q T ...
    boxes, padded = arrays['in/pred_boxes'][0], tuple(arrays['in/padded_size'].tolist())
    mean = 1 / (1 + np.exp(-scores[..., 0]))
    ours: Results = {}
    for i, (crop, size) in enumerate(zip(arrays['in/sizes'].tolist(), arrays['in/orig_sizes'].tolist())):
        crop, size = tuple(crop), tuple(size)
        best, score, now = mean[i].mean(-1).argmax(), mean[i, :, 0], logits[i, :, 0]
        large = np.asarray(resize.bilinear(logits[i][..., None], size)[..., 0])
        order = np.argsort(-score, kind='stable')
        x, y, w, h = (boxes[i] * np.tile(size[::-1], 2)).T
        grid = tuple(4 * n for n in logits.shape[-2:])
        ours |= {
            f'ytvos_val_masks{i}': masks.binary_at(logits[i, best], padded, crop, size),
            f'a2d_scores{i}': score,
            f'a2d_masks{i}': masks.binary_at(now, padded, crop, size),
            f'coco_scores{i}': score[order],
            f'coco_masks{i}': masks.binary_at(now, grid, crop, size)[order],
            f'coco_boxes{i}': np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)[order],
        }
        if i == 0:
            ours |= {
                'infer_scores': mean[0].mean(-1),
                'infer_query': best,
                'infer_mask_logits': large[best],
                'infer_masks': large[best] > 0,
            }
    chosen = np.stack([x[scores.mean(-1).argmax()] for x, scores in zip(logits, mean)])
    objects = np.asarray(resize.bilinear(chosen[..., None], arrays['in/orig_sizes'][0].tolist())[..., 0])
    labels = masks.merge_objects(objects, [1, 2])
    tie = np.abs(objects[0] - objects[1]) < 1e-6  # if two are equal up to rounding, either may win
    return cases.named('out', ours | {'davis_labels': np.where(tie, arrays['out/davis_labels'], labels)})


def _whole_model(meaning):
    encoders, overrides = cases.encoders(meaning)
    fields = cases.settings(overrides.pop('DeformTransformer'), 'config_overrides.DeformTransformer', *TRANSFORMER)
    fields |= cases.settings(overrides.pop('VOC'), 'config_overrides.VOC', *CLUSTER)
    cases.settings(overrides, 'config_overrides', {}, {'freeze_text_encoder': cases.ANY})
    model = soc.SOC(*encoders, dropout=0.0, text_dropout=0.0, drop_path=0.0, **fields)
    return model, cases.parameters(systems.parameter_shapes(model), meaning)


@contextlib.contextmanager
def _mixing(active):
    """If active, the object cluster gets clips in the release's mixed order."""

    def mix(call, arguments, options, context):
        if active and context.module.name == 'object_cluster' and context.method_name == '__call__':
            arguments = _mixed(arguments[0]), *arguments[1:]
        return call(*arguments, **options)

    with nn.intercept_methods(mix):
        yield


RECORDED = (
    'video_encoder',
    'encode_text',
    'transformer/encode',
    'transformer/decode',
    'transformer/reference_points',
    'fusion',
    'object_cluster',
    'feature_pyramid',
    'patch_kernels/controller',
)


def compare_evaluation(arrays: Arrays, meaning: Meaning) -> Results:
    model, parameters = _whole_model(meaning)
    clip, mixing = cases.clip(arrays, multiple=1), 'mixing' in meaning['case']

    def run(layer, mixing):
        module = model.clone(inference_layer=layer, padding_is_content=not clip.valid.all())

        @compilation.jit
        def forward(parameters, clip, text):
            with _mixing(mixing), cases.recorded(*RECORDED) as calls:
                return module.apply({'params': parameters}, clip, text, queries.best_query)[0], calls

        proposals, calls = jax.device_get(forward(parameters, clip, cases.text(arrays)))
        return (
            proposals,
            calls,
            {
                'pred_cls': np.moveaxis(proposals.scores[0], 0, 1)[..., None],
                'pred_boxes': np.moveaxis(proposals.boxes[0], 0, 1),
                'pred_masks': np.moveaxis(proposals.mask_logits[0, ..., 0], 0, 1),
            },
        )

    proposals, calls, ours = run('first', mixing)
    ours |= {f'alt_last_layer_{name}': x for name, x in run('last', mixing)[2].items()}
    if mixing:
        ours |= {f'alt_unmixed_{name}': x for name, x in run('first', False)[2].items()}

    (levels, valid, words), (_, guidance) = calls['fusion']
    to_language = multimodal_fusion.LanguageFusion(cases.HEADS)
    weights = {'params': parameters['fusion']['to_language']}
    ours |= {
        f'lang{i}': np.swapaxes(np.asarray(to_language.apply(weights, levels[i], valid[i], words)), 0, 1)
        for i in range(3)
    }
    stages = cases.stages(calls, clip, arrays)
    ours |= stages | {
        'text_word': np.swapaxes(np.asarray(stages['text_word']), 0, 1),
        'guidance': guidance,
        'voc_queries': calls['object_cluster'][1][0],
        'voc_hs': calls['object_cluster'][1],
        'mask_features': cases.first(calls['feature_pyramid'][1]),
        'controller_layer0': np.moveaxis(calls['patch_kernels/controller'][1][0], 0, 1),
    }
    return {'best_query': queries.best_query(proposals)[0]} | cases.named('out', ours)


def compare_training(arrays: Arrays, meaning: Meaning) -> Results:
    """All dropouts are 0; the text encoder is frozen unless the case says otherwise."""
    model, parameters = _whole_model(meaning)
    clip = cases.clip(arrays, multiple=1)
    trajectories = _trajectories(arrays, clip.frames.shape[2:4])
    frozen = {}
    if meaning['config_overrides'].get('freeze_text_encoder', True):
        frozen['text_backbone'] = parameters.pop('text_backbone')

    def total(parameters, frozen, clip, text):
        with _mixing('mixing' in meaning['case']), cases.recorded(*RECORDED) as calls:
            proposals, _, _ = model.apply({'params': parameters | frozen}, clip, text, queries.best_query, train=True)
        value, ours = _criterion(
            proposals.scores[..., None],
            proposals.boxes,
            proposals.mask_logits[..., 0],
            proposals.alignment,
            trajectories,
        )
        ours |= {
            'pred_cls': _by_clip(proposals.scores[..., None]),
            'pred_boxes': _by_clip(proposals.boxes),
            'pred_masks': jnp.swapaxes(proposals.mask_logits[-1, ..., 0], 0, 1),
            'voc_queries': calls['object_cluster'][1],
            'guidance': calls['fusion'][1][1],
        }
        return value, ours

    gradients, ours = jax.device_get(
        compilation.jit(jax.grad(total, has_aux=True))(parameters, frozen, clip, cases.text(arrays))
    )
    return cases.named('out', ours) | cases.gradients(
        {convert.soc_name(name): x for name, x in convert.to_official(gradients).items()}
    )


COMPARISONS: dict[str, Callable[..., Results]] = {  # by the case's name
    'comp_criterion*': compare_criterion,
    'comp_fpn*': compare_feature_pyramid,
    'comp_maskhead*': compare_mask_head,
    'comp_mmf*': compare_fusion,
    'comp_postprocess*': compare_postprocess,
    'comp_voc*': compare_object_cluster,
    'full_*_eval*': compare_evaluation,
    'full_*_train*': compare_training,
}
