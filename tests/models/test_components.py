"""Every module by itself against the authors' release on the same weights."""
from flax import traverse_util
import golden_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmg_jax import types
from sgmg_jax.convert import sgmg as convert
from sgmg_jax.models import deformable_transformer, mask_optimizer, roberta, spectral_fusion, video_swin
from sgmg_jax.ops import positions


def channels_last(x):
    return np.moveaxis(x, -3, -1)


def parameters(names, prefix, module, *inputs, **options):
    """The module's parameters, filled from the official names: those that go under `prefix`."""
    flat = {}
    for name in names:
        if 'relative_position_index' in name:
            continue
        for target, part in convert.place(name, golden_cases.fill(name, names[name])).items():
            if target.startswith(prefix + '/'):
                flat[target.removeprefix(prefix + '/')] = part
    shapes = jax.eval_shape(lambda key: module.init(key, *inputs, **options)['params'], jax.random.key(0))
    wanted = traverse_util.flatten_dict(shapes, sep='/')
    assert set(wanted) == set(flat)
    return traverse_util.unflatten_dict({k: v.reshape(wanted[k].shape) for k, v in flat.items()}, sep='/')


SWIN = video_swin.VideoSwin(video_swin.Size(24, (2, 2, 2, 2), (3, 6, 12, 24)), drop_path=0)


@pytest.mark.parametrize('case, clips', [('comp_swin_T2_61x70', 1), ('comp_swin_T5_64x80', 1),
                                         ('comp_swin_T10_72x104', 1), ('comp_swin_B2_T3_64x72', 2)])
@pytest.mark.parametrize('backend', ['cpu', 'tpu'])
def test_video_swin(case, clips, backend, monkeypatch):
    """Window by window, as on a CPU, and all windows at once, as on an accelerator."""
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    arrays, _ = golden_cases.load(case)
    frames = channels_last(arrays['in/x'])
    frames = frames.reshape(clips, -1, *frames.shape[1:])
    names = {n: s for n, s in golden_cases.official_shapes().items() if n.startswith('backbone.')}
    weights = parameters(names, 'video_encoder', SWIN, frames)
    maps = jax.jit(lambda p, x: SWIN.apply({'params': p}, x))(weights, frames)
    for i, ours in enumerate(maps):
        expected = channels_last(arrays[f'out/feat{i}']).reshape(ours.shape)
        np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize('length, filled', [(3, 8), (8, 8), (10, 16)])
def test_video_swin_does_not_see_frames_that_fill_a_clip(length, filled):
    """Time buckets are exact: a clip filled to whole windows gives what the bare clip gives."""
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((1, filled, 64, 48, 3), dtype=np.float32)
    names = {n: s for n, s in golden_cases.official_shapes().items() if n.startswith('backbone.')}
    weights = parameters(names, 'video_encoder', SWIN, frames)
    real = np.arange(filled)[None] < length
    bare = jax.jit(lambda p, x: SWIN.apply({'params': p}, x))(weights, frames[:, :length])
    full = jax.jit(lambda p, x: SWIN.apply({'params': p}, x, real_frames=real))(weights, frames)
    for a, b in zip(bare, full):
        np.testing.assert_allclose(a, b[:, :length], atol=1e-4)


def test_video_swin_recomputes_the_same():
    frames = np.random.default_rng(0).standard_normal((1, 2, 32, 32, 3), dtype=np.float32)
    size = video_swin.Size(8, (2, 1, 1, 1), (1, 1, 1, 1))
    plain, remat = (video_swin.VideoSwin(size, remat=remat) for remat in (False, True))
    weights = jax.jit(plain.init)(jax.random.key(0), frames)

    def gradient(module):
        return jax.jit(jax.grad(lambda p: sum((x ** 2).sum() for x in module.apply(
            p, frames, None, True, rngs={'dropout': jax.random.key(1)}))))(weights)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
                 gradient(plain), gradient(remat))


def test_roberta():
    arrays, meaning = golden_cases.load('comp_roberta')
    module = roberta.Roberta(roberta.Size(vocabulary=120, channels=48, layers=2, heads=4, mlp=96, positions=40))
    text = types.Text(arrays['in/input_ids'].astype(np.int32), arrays['in/attention_mask'] == 1)
    weights = parameters(meaning['weights']['names'], 'text_backbone', module, text)
    words, sentence = module.apply({'params': weights}, text)
    np.testing.assert_allclose(words, arrays['out/last_hidden_state'], atol=1e-4)
    np.testing.assert_allclose(sentence, arrays['out/pooler_output'], atol=1e-4)
    long = types.Text(jnp.zeros((1, 39), jnp.int32), jnp.ones((1, 39), bool))
    with pytest.raises(ValueError, match='39 tokens a sentence need 41 positions'):
        module.apply({'params': weights}, long)


@pytest.mark.parametrize('case', ['comp_lfm_even', 'comp_lfm_odd'])
def test_spectrum_augmentation(case):
    arrays, meaning = golden_cases.load(case)
    module = spectral_fusion.SpectrumAugmentation()
    names = meaning['weights']['names']
    levels = [channels_last(arrays[f'in/x{i}']) for i in range(3)]
    cotangents = [channels_last(arrays[f'in/cot{i}']) for i in range(3)]
    filters = spectral_fusion.spectrum_filters([x.shape[1:3] for x in levels])
    weights = {f'{side}_{i}': parameters(
        {n: s for n, s in names.items() if n.startswith(f'{official}.{i}.')}, f'{side}_{i}', module, x, filters[i])
        for side, official in (('augment_before', 'input_fft'), ('augment_after', 'input_fft_post'))
        for i, x in enumerate(levels)}

    def outputs(weights, levels):
        before = [module.apply({'params': weights[f'augment_before_{i}']}, x, filters[i])
                  for i, x in enumerate(levels)]
        after = [module.apply({'params': weights[f'augment_after_{i}']}, x, filters[i])
                 for i, x in enumerate(before)]
        return before, after

    (before, after), pull_back = jax.vjp(outputs, weights, levels)
    for i in range(3):
        np.testing.assert_allclose(filters[i], arrays[f'out/filter_pre{i}'][0, 0], atol=1e-6)
        np.testing.assert_allclose(before[i], channels_last(arrays[f'out/pre{i}']), atol=1e-4)
        np.testing.assert_allclose(after[i], channels_last(arrays[f'out/post{i}']), atol=1e-4)
    to_weights, to_levels = pull_back(([jnp.zeros_like(x) for x in before], cotangents))
    for i in range(3):
        np.testing.assert_allclose(to_levels[i], channels_last(arrays[f'grad/x{i}']), atol=1e-4)
    flat = traverse_util.flatten_dict(to_weights, sep='/')
    for key in (k for k in arrays if k.startswith('grad/input')):
        for target, part in convert.place(key.removeprefix('grad/'), arrays[key]).items():
            np.testing.assert_allclose(flat[target].reshape(part.shape), part, rtol=1e-3, atol=1e-3)


def test_word_attention():
    arrays, meaning = golden_cases.load('comp_fusion')
    module = spectral_fusion.WordAttention(heads=8)
    pixels = arrays['in/visual'].transpose(3, 0, 1, 2, 4)  # t h w b c -> b t h w c
    words, valid = arrays['in/text'].transpose(1, 0, 2), ~arrays['in/text_mask']
    where = positions.sine_1d(jnp.asarray(valid), 64)
    np.testing.assert_allclose(where, arrays['out/text_pos'].transpose(1, 0, 2), atol=1e-5)
    weights = parameters(meaning['weights']['names'], 'word_attention', module, pixels, words, where, valid)
    out, pull_back = jax.vjp(
        lambda p, x, y: module.apply({'params': p}, x, y, where, valid), weights, pixels, words)

    def unfold(x):
        return x.transpose(1, 0, 2).reshape(out.shape)

    np.testing.assert_allclose(out, unfold(arrays['out/out']), atol=1e-4)
    _, to_pixels, to_words = pull_back(unfold(arrays['in/cot']))
    np.testing.assert_allclose(to_pixels, arrays['grad/visual'].transpose(3, 0, 1, 2, 4), atol=1e-4)
    np.testing.assert_allclose(to_words, arrays['grad/text'].transpose(1, 0, 2), atol=1e-4)


def test_deformable_transformer():
    arrays, meaning = golden_cases.load('comp_transformer')
    module = deformable_transformer.DeformableTransformer(
        hidden=64, mlp=128, heads=8, points=4, encoder_layers=2, decoder_layers=2)
    levels = [channels_last(arrays[f'in/src{i}']) for i in range(4)]
    valid = [jnp.asarray(~arrays[f'in/mask{i}']) for i in range(4)]
    where = [positions.sine_2d(v, 64) for v in valid]
    content = arrays['in/tgt'].reshape(4, 5, 64)[:, 0]
    inputs = levels, valid, where, content, arrays['in/query_embed']
    weights = parameters(meaning['weights']['names'], 'transformer', module, *inputs)
    memory, states, boxes, points = jax.jit(lambda p: module.apply({'params': p}, *inputs))(weights)
    np.testing.assert_allclose(states, arrays['out/hs'], atol=1e-4)
    np.testing.assert_allclose(boxes, arrays['out/inter_references'], atol=1e-4)
    np.testing.assert_allclose(points, arrays['out/inter_references'][..., :2], atol=1e-4)
    for i in range(3):
        np.testing.assert_allclose(memory[i], channels_last(arrays[f'out/memory{i}']), atol=1e-4)


@pytest.mark.parametrize('points', [2, 4])
def test_deformable_attention(points):
    arrays, meaning = golden_cases.load(f'comp_msda_ref{points}')
    module = deformable_transformer.DeformableAttention(heads=8, points=4, dtype=jnp.float32)
    sizes = [tuple(map(int, s)) for s in arrays['in/spatial_shapes']]
    valid = ~arrays['in/padding_mask']
    names = meaning['weights']['names']
    shapes = names if isinstance(names, dict) else {n: golden_cases.official_shapes()[n] for n in names}
    query, references, memory = (arrays[f'in/{n}'] for n in ('query', 'reference_points', 'value_in'))
    weights = parameters(shapes, 'transformer/encoder0/attention', module, query, references, memory, sizes, valid)
    out, pull_back = jax.vjp(lambda p, q, r, m: module.apply({'params': p}, q, r, m, sizes, valid),
                             weights, query, references, memory)
    np.testing.assert_allclose(out, arrays['out/out'], atol=1e-4)
    to_weights, to_query, to_references, to_memory = pull_back(arrays['in/cot'])
    np.testing.assert_allclose(to_query, arrays['grad/query'], atol=1e-3)
    np.testing.assert_allclose(to_memory, arrays['grad/value_in'], atol=1e-3)
    scale = np.abs(arrays['grad/reference_points']).max()
    np.testing.assert_allclose(to_references / scale, arrays['grad/reference_points'] / scale, atol=1e-3)


@pytest.mark.parametrize('case', ['comp_mso_even', 'comp_mso_odd'])
def test_mask_optimizer(case):
    arrays, meaning = golden_cases.load(case)
    module = mask_optimizer.MaskOptimizer()
    masks, stride8, stride4, cotangent = (
        channels_last(arrays[f'in/{n}']) for n in ('pred_masks', 'feat8', 'feat4', 'cot'))
    weights = parameters(meaning['weights']['names'], 'mask_optimizer', module, masks[None], stride8, stride4)
    out, pull_back = jax.vjp(lambda *x: module.apply({'params': weights}, *x), masks[None], stride8, stride4)
    np.testing.assert_allclose(out[0], channels_last(arrays['out/out']), atol=1e-4)
    to_masks, to_stride8, to_stride4 = pull_back(cotangent[None])
    for ours, name in ((to_masks[0], 'pred_masks'), (to_stride8, 'feat8'), (to_stride4, 'feat4')):
        np.testing.assert_allclose(ours, channels_last(arrays[f'grad/{name}']), atol=1e-4)


def test_box_refinement_off_keeps_the_first_point():
    module = deformable_transformer.DeformableTransformer(
        hidden=32, mlp=32, heads=2, encoder_layers=1, decoder_layers=2, box_refinement=False)
    rng = np.random.default_rng(0)
    levels = [rng.standard_normal((1, n, n, 32), dtype=np.float32) for n in (4, 2)]
    valid = [np.ones(x.shape[:3], bool) for x in levels]
    inputs = levels, valid, levels, levels[0][:, 0, 0], rng.standard_normal((3, 32), dtype=np.float32)
    weights = module.init(jax.random.key(0), *inputs)
    _, _, boxes, points = module.apply(weights, *inputs)
    np.testing.assert_array_equal(points[0], points[1])
    assert boxes.shape == (2, 1, 3, 4)
