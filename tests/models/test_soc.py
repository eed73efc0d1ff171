"""SOC beyond the golden cases (tests/parity/test_parity.py); on a small model with seeded weights."""

import functools
import itertools

from flax import linen as nn
import jax
import numpy as np
import pytest

from sgmg_jax import systems, types
from sgmg_jax.data import clips
from sgmg_jax.inference import segment
from sgmg_jax.losses import soc as losses
from sgmg_jax.models import roberta, soc, video_swin
from sgmg_jax.ops import queries

FIELDS = dict(
    backbone=video_swin.Size(8, (1, 1, 1, 1), (1, 1, 2, 2)),
    text_encoder=roberta.Size(vocabulary=100, channels=16, layers=1, heads=2, mlp=16, positions=20),
    hidden=128,
    queries=3,
    heads=2,
    points=2,
    encoder_layers=1,
    decoder_layers=2,
    mlp=32,
    cluster_encoder_layers=1,
    cluster_decoder_layers=1,
    cluster_mlp=32,
    dropout=0.0,
    text_dropout=0.0,
    drop_path=0.0,
)
SOC = soc.SOC(**FIELDS)
HEIGHT, WIDTH = 45, 62


@functools.cache
def parameters(model=SOC):
    """Seeded; none is zero."""
    rng = np.random.default_rng(0)

    def fill(path, x):
        spread = 0.1 if len(x.shape) == 1 else 1 / np.sqrt(np.prod(x.shape[:-1]))
        return (rng.normal(0, spread, x.shape) + (path[-1].key == 'scale')).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, systems.parameter_shapes(model))


def make_clip(count, frames, seed=0):
    rng = np.random.default_rng(seed)
    shape = count, frames, HEIGHT, WIDTH
    return types.Clip(
        rng.standard_normal((*shape, 3), dtype=np.float32),
        np.ones(shape, bool),
        np.full((count, 2), (HEIGHT, WIDTH), np.int32),
    )


def make_text(lengths, seed=0):
    valid = np.arange(max(lengths)) < np.array(lengths)[:, None]
    tokens = np.random.default_rng(seed).integers(3, 100, valid.shape)
    return types.Text(np.where(valid, tokens, roberta.PADDING_ID).astype(np.int32), valid)


@functools.cache
def _apply(model, train):
    return jax.jit(lambda p, clip, text: model.apply({'params': p}, clip, text, queries.best_query, train=train))


def run(clip, text, model=SOC, train=False):
    proposals, _, predictions = _apply(model, train)(parameters(model), clip, text)
    return proposals, predictions


def rows(tree, chosen):
    return jax.tree.map(lambda x: x[np.array(chosen)], tree)


def assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5 * max(1, np.abs(y).max())), a, b)


@pytest.mark.parametrize('train', [False, True])
def test_clips_and_sentences_do_not_mix(train):
    """The released code mixes them up if a batch has several clips of several frames."""
    clip, text = make_clip(2, 3), make_text([6, 3, 4, 2])
    together, _ = run(clip, text, train=train)
    assert together.scores.shape == (2 if train else 1, 4, 3, 3) and together.mask_logits.shape[-3:] == (12, 16, 1)
    for i in range(4):
        alone, _ = run(rows(clip, [i // 2]), rows(text, [i]), train=train)
        assert_close(jax.tree.map(lambda x: x[:, 0], alone), jax.tree.map(lambda x, i=i: x[:, i], together))


def test_padded_frames_are_ignored():
    """A clip of three frames, padded to eight: padding is masked as keys in every attention."""
    frames = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)
    full = segment.pad_clip(frames, (HEIGHT, WIDTH), SOC.conventions)
    assert full.frames.shape == (1, 8, HEIGHT, WIDTH, 3)
    bare = jax.tree.map(lambda x: x[:, :3] if x.ndim > 2 else x, full)
    (ours, _), (expected, _) = run(full, make_text([5])), run(bare, make_text([5]))
    for name in ('scores', 'boxes', 'mask_logits'):
        assert_close(getattr(ours, name)[:, :, :3], getattr(expected, name))
    assert_close(ours.alignment, expected.alignment)
    windows = SOC.clone(cluster_window=2)  # which padding would shift
    assert segment.pad_clip(frames, (HEIGHT, WIDTH), windows.conventions).frames.shape == (1, 3, HEIGHT, WIDTH, 3)


DEEP = SOC.clone(backbone=video_swin.Size(8, (2, 1, 1, 2), (1, 1, 2, 2)))  # with shifted windows


@functools.cache
def unpadded(height, width):
    """Three frames of this size, and what the model finds in them."""
    frames = np.random.default_rng(height).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    bare = segment.pad_clip(frames, (height, width), SOC.conventions._replace(frames=1, shared=1))
    assert bare.frames.shape == (1, *frames.shape)
    return frames, run(bare, make_text([5]), DEEP)[0]


@pytest.mark.parametrize('shared, shape', [(128, (1, 8, 256, 384, 3)), (201, (1, 8, 402, 402, 3))])
def test_padded_pixels_are_ignored(shared, shape):
    """Clips padded to a common size give what each gives alone: maps of every stride end where its own frame does."""
    sizes = (229, 383), (256, 280)
    conventions = SOC.conventions._replace(shared=shared)
    padded = [segment.pad_clip(unpadded(*size)[0], size, conventions) for size in sizes]
    assert {clip.frames.shape for clip in padded} == {shape}
    together, _ = run(jax.tree.map(lambda *x: np.concatenate(x), *padded), rows(make_text([5]), [0, 0]), DEEP)
    for i, size in enumerate(sizes):
        _, alone = unpadded(*size)
        height, width = segment.mask_size(padded[i], SOC.conventions)
        assert alone.mask_logits.shape[-3:] == (height, width, 1)
        assert_close(together.scores[:, i, :3], alone.scores[:, 0])
        assert_close(together.boxes[:, i, :3], alone.boxes[:, 0])
        assert_close(together.mask_logits[:, i, :3, :, :height, :width], alone.mask_logits[:, 0])
        assert_close(together.alignment[:, i], alone.alignment[:, 0])


def test_without_padding_it_is_the_released_model():
    """Which pads its maps to whole windows with zeros that are keys."""
    clip, text = make_clip(1, 2), make_text([5])
    (ours, _), (released, _) = run(clip, text), run(clip, text, SOC.clone(padding_is_content=True))
    assert_close(ours, released)


def test_training_sees_padding():
    """As in the release, whose norms and convolutions see what pads a batch."""
    frames = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), dtype=np.uint8)
    clip = segment.pad_clip(frames, (HEIGHT, WIDTH), SOC.conventions._replace(pixels=32))
    trained, _ = run(clip, make_text([5]), train=True)
    evaluated, _ = run(clip, make_text([5]), SOC.clone(inference_layer='last'))
    assert np.abs(trained.scores[-1] - evaluated.scores[0]).max() > 1e-3


def test_few_sizes_for_any_picture():
    """COCO's pictures have up to 640 pixels a side. Without padding, each size would have programs of its own."""
    found, unpadded_sizes = set(), set()
    for long, ratio in itertools.product((320, 427, 500, 612, 640), np.linspace(1, 2.2, 61)):
        for size in {(int(long / ratio), long), (long, int(long / ratio))}:
            resized = clips.resized_size(*size, 360, 640)
            unpadded_sizes.add(resized)
            clip = segment.pad_clip(np.empty((1, *resized, 3), np.uint8), resized, SOC.conventions, usual=360)
            found.add(clip.frames.shape[2:4])
    assert len(found) <= 12 and len(unpadded_sizes) > 250
    assert (360, 640) in found  # videos lose nothing
    small = np.empty((1, 224, 300, 3), np.uint8)
    assert segment.pad_clip(small, small.shape[1:3], SOC.conventions).frames.shape[2:4] == (224, 300)


def test_inference_layer():
    """First or last; both use the video queries of the last."""
    clip, text = make_clip(2, 3), make_text([6, 3, 4, 2])
    first, last = (run(clip, text, SOC.clone(inference_layer=layer))[0] for layer in ('first', 'last'))
    assert np.abs(first.scores - last.scores).max() > 1e-3
    assert_close(first.alignment, last.alignment)
    trained, _ = run(clip, text, train=True)
    assert_close(jax.tree.map(lambda x: x[-1:], trained), last)


@pytest.mark.parametrize('layer, index', [('first', 0), ('last', 2)])
def test_only_heads_of_the_inference_layer_run(layer, index):
    """Of three layers. Their outputs are in the golden cases."""
    class_heads, box_heads = [], []

    def note(call, arguments, options, context):
        name = context.module.name or ''
        if name.startswith('box_head'):
            box_heads.append(name)
        if name.startswith('class_heads'):
            class_heads.append(name)
        return call(*arguments, **options)

    model = SOC.clone(decoder_layers=3, inference_layer=layer)
    shapes = systems.parameter_shapes(model)
    with nn.intercept_methods(note):
        proposals, *_ = jax.eval_shape(
            lambda p: model.apply({'params': p}, make_clip(1, 2), make_text([4]), queries.best_query), shapes
        )
    assert proposals.scores.shape == (1, 1, 2, 3) and class_heads == [f'class_heads_{index}']
    assert box_heads == [f'box_head{i}' for i in (0, 1, 2, index)]  # first the decoder's box refinement in every layer


def test_contrast_scale():
    rng = np.random.default_rng(0)
    video_queries, guidance = rng.standard_normal((2, 3, 4, 16)), rng.standard_normal((3, 16))
    expected = np.einsum('dnqc,nc->dnq', video_queries, guidance)
    np.testing.assert_allclose(soc.alignment(video_queries, guidance, 'channels'), expected / 16, rtol=1e-5)
    np.testing.assert_allclose(soc.alignment(video_queries, guidance, 'root'), expected / 4, rtol=1e-5)


def test_score_is_the_largest_class_logit():
    model, clip, text = SOC.clone(classes=3), make_clip(2, 3), make_text([6, 3, 4, 2])
    weights = dict(parameters(model))
    one = weights | {
        f'class_heads_{i}': jax.tree.map(lambda x: x[..., 1:2], weights[f'class_heads_{i}']) for i in range(2)
    }
    for head in ('class_heads_0', 'class_heads_1'):
        weights[head] = weights[head] | {'bias': weights[head]['bias'] + np.float32([-50, 0, -50])}
    assert_close(_apply(model, False)(weights, clip, text)[0], _apply(SOC, False)(one, clip, text)[0])
    with pytest.raises(ValueError, match='classes = 3: can be evaluated, but not trained'):
        jax.eval_shape(lambda p: model.apply({'params': p}, clip, text, queries.best_query, train=True), weights)


@pytest.mark.parametrize(
    'field, value, message',
    [
        ('inference_layer', 'middle', "inference_layer = 'middle': must be one of first, last"),
        ('contrast_scale', 'none', "contrast_scale = 'none': must be one of channels, root"),
        ('hidden', 64, 'hidden = 64: must be a multiple of 128 for SOC'),
        ('levels', 5, 'levels = 5: must be 3'),
    ],
)
def test_invalid_fields_are_errors(field, value, message):
    with pytest.raises(ValueError, match=message):
        systems.parameter_shapes(SOC.clone(**{field: value}))


def test_gradients_reach_all_parameters_that_matter():
    clip, text = make_clip(2, 2), make_text([5, 3])
    rng = np.random.default_rng(0)
    masks = rng.random((2, 2, HEIGHT, WIDTH)) < 0.4
    boxes = rng.uniform(0.2, 0.5, (2, 2, 4)).astype(np.float32)
    targets = types.Targets(masks, boxes, np.ones((2, 2), bool), clip.size, np.ones(2, bool))

    @jax.jit
    def gradient(weights):
        return jax.grad(
            lambda p: losses.loss(
                SOC.apply({'params': p}, clip, text, lambda x: losses.match(x, targets), train=True), targets
            )[0]
        )(weights)

    norms = jax.tree_util.tree_leaves_with_path(jax.tree.map(np.linalg.norm, gradient(parameters())))
    assert all(np.isfinite(norm) for _, norm in norms)
    silent = {jax.tree_util.keystr(path, simple=True, separator='/') for path, norm in norms if norm < 3e-6}
    # All others are above 1e-5. The first layer's queries are all zero; a key bias shifts all logits equally; a norm
    # with one channel per group removes a preceding bias.
    start = 'transformer/decoder0/self_attention'
    known = {f'{start}/{part}/kernel' for part in ('query', 'key', 'value')} | {
        f'{start}/query/bias',
        'feature_pyramid/conv5/bias',
    }
    assert {path for path in silent if not path.endswith('key/bias')} == known
    # Nothing is in doubt between rounding and a gradient.
    assert not [path for path, norm in norms if 3e-6 <= norm <= 1e-5]
