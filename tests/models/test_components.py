"""Single modules, beyond the golden cases (tests/parity/test_parity.py)."""

import functools
import re

from flax import linen as nn
from flax import traverse_util
import golden_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import transformers

from configs import common, ytvos_fast, ytvos_soc
from sgmg_jax import config as configs
from sgmg_jax import systems, types
from sgmg_jax.convert import names as convert
from sgmg_jax.models import chunks, deformable_transformer, features, layers, roberta, video_swin
from sgmg_jax.ops import queries
from sgmg_jax.parity import cases


def channels_last(x):
    return np.moveaxis(x, -3, -1)


def parameters(names, prefix, module, *inputs, **options):
    """The module's parameters, filled from the official names that belong under `prefix`."""
    flat = {}
    for name in names:
        if 'relative_position_index' in name:
            continue
        for target, part in convert.place(name, cases.fill(name, names[name])).items():
            if target.startswith(prefix + '/'):
                flat[target.removeprefix(prefix + '/')] = part
    shapes = jax.eval_shape(lambda key: module.init(key, *inputs, **options)['params'], jax.random.key(0))
    wanted = traverse_util.flatten_dict(shapes, sep='/')
    assert set(wanted) == set(flat)
    return traverse_util.unflatten_dict({k: v.reshape(wanted[k].shape) for k, v in flat.items()}, sep='/')


SWIN = video_swin.VideoSwin(video_swin.Size(24, (2, 2, 2, 2), (3, 6, 12, 24)), drop_path=0.0)


@pytest.mark.parametrize(
    'case, clips',
    [('comp_swin_T2_61x70', 1), ('comp_swin_T5_64x80', 1), ('comp_swin_T10_72x104', 1), ('comp_swin_B2_T3_64x72', 2)],
)
def test_video_swin_all_windows_at_once(case, clips, monkeypatch):
    """As on an accelerator; the golden cases run window by window, as on a CPU."""
    monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
    arrays, _ = golden_cases.load(case)
    frames = channels_last(arrays['in/x'])
    frames = frames.reshape(clips, -1, *frames.shape[1:])
    names = {n: s for n, s in golden_cases.official_shapes().items() if n.startswith('backbone.')}
    weights = parameters(names, 'video_encoder', SWIN, frames)
    maps = jax.jit(lambda p, x: SWIN.apply({'params': p}, x))(weights, frames)
    for i, ours in enumerate(maps):
        expected = channels_last(arrays[f'out/feat{i}']).reshape(ours.shape)
        np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize('length, filled', [(1, 8), (3, 8), (8, 8), (9, 16), (10, 16), (20, 24)])
def test_video_swin_ignores_padded_frames(length, filled):
    """A clip padded to whole windows gives exactly the results of the unpadded clip."""
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((1, filled, 64, 48, 3), dtype=np.float32)
    names = {n: s for n, s in golden_cases.official_shapes().items() if n.startswith('backbone.')}
    weights = parameters(names, 'video_encoder', SWIN, frames)
    real = np.arange(filled)[None] < length
    bare = jax.jit(lambda p, x: SWIN.apply({'params': p}, x))(weights, frames[:, :length])
    full = jax.jit(lambda p, x: SWIN.apply({'params': p}, x, real_frames=real))(weights, frames)
    for a, b in zip(bare, full):
        np.testing.assert_allclose(a, b[:, :length], atol=1e-4)


@pytest.mark.parametrize('heads', [2, 4, 8])
def test_heads_that_begin_near_look_at_different_neighbours_two_frames_before(heads):
    x = np.random.default_rng(0).standard_normal((2, 1, np.prod(video_swin.WINDOW), 64)).astype(np.float32)
    attention = video_swin.WindowAttention(heads, near=True)
    out, variables = attention.init_with_output(jax.random.key(0), x)
    assert 0.6 < np.std(out) < 1.6  # as large as what it is added to

    table = variables['params']['relative_position_bias']
    logits = np.asarray(table)[video_swin.relative_position_index()]  # query, key, head
    at = [np.array(np.unravel_index(i, video_swin.WINDOW)) for i in range(len(logits))]
    (query,) = [i for i, place in enumerate(at) if tuple(place) == (4, 3, 3)]
    weights = scipy.special.softmax(logits[query], axis=0)
    offsets = {tuple(at[key] - at[query]) for key in weights.argmax(0)}
    assert weights.max(0).min() > 0.8
    assert len(offsets) == heads and all(t == -2 and max(abs(y), abs(x)) == 1 for t, y, x in offsets)


def test_video_swin_remat_gives_the_same_gradients():
    frames = np.random.default_rng(0).standard_normal((1, 2, 32, 32, 3), dtype=np.float32)
    size = video_swin.Size(8, (2, 1, 1, 1), (1, 1, 1, 1))
    models = {remat: video_swin.VideoSwin(size, remat=remat) for remat in chunks.REMAT}
    weights = jax.jit(models['nothing'].init)(jax.random.key(0), frames)

    def loss(module, weights):
        maps = module.apply(weights, frames, None, True, rngs={'dropout': jax.random.key(1)})
        return sum((x**2).sum() for x in maps)

    check_remat(lambda remat: functools.partial(loss, models[remat]), weights, parts=5)
    with pytest.raises(ValueError, match="remat = 'all': must be one of 'nothing', 'hidden', 'blocks'"):
        video_swin.VideoSwin(size, remat='all').init(jax.random.key(0), frames)


def check_remat(loss_of, weights, parts):
    """Gradients are the same, however much the backward pass computes again.

    loss_of: function(remat) -> function(weights) -> loss. parts: how many have something hidden that is computed again;
      if whole blocks are, then also these, and what is hidden in them twice.

    Returns the gradients.
    """

    def gradient(remat):
        traced = jax.jit(jax.grad(loss_of(remat))).trace(weights)
        return traced.lower().compile()(weights), str(traced.jaxpr).count('remat2[')

    assert chunks.REMAT == configs.REMAT == ('nothing', 'hidden', 'blocks')
    (expected, *others), counts = zip(*map(gradient, chunks.REMAT))
    assert counts == (0, parts, 3 * parts)
    for found in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)
    return expected


def test_transformer_remat_gives_the_same_gradients(monkeypatch):
    monkeypatch.setattr(chunks, 'LARGEST', 100)
    rng = np.random.default_rng(0)
    levels, positions = ([rng.standard_normal((2, n, n, 16), dtype=np.float32) for n in (4, 2)] for _ in range(2))
    valid = [np.ones(x.shape[:3], bool) for x in levels]
    valid[0][1, 2:] = valid[1][1, 1:] = False
    content, embedding = rng.standard_normal((2, 3, 16), np.float32), rng.standard_normal((3, 16), np.float32)
    sizes = dict(hidden=16, levels=2, mlp=24, heads=2, points=2, encoder_layers=1, decoder_layers=1, dropout=0.3)
    models = {remat: deformable_transformer.DeformableTransformer(**sizes, remat=remat) for remat in chunks.REMAT}

    def outputs(module):
        memory = module.encode(levels, valid, positions, True)
        return memory, module.decode(memory, valid, content, embedding, True)

    # Initial weights have zeros that block the gradients of offsets and boxes.
    shapes = jax.eval_shape(
        lambda: models['nothing'].init({name: jax.random.key(0) for name in ('params', 'dropout')}, method=outputs)
    )
    weights = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)

    def loss(module, weights):
        results = module.apply(weights, method=outputs, rngs={'dropout': jax.random.key(1)})
        return sum((x**2).sum() for x in jax.tree.leaves(results))

    gradients = check_remat(lambda remat: functools.partial(loss, models[remat]), weights, parts=2)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradients))


@pytest.mark.parametrize('corners', [2, 4])
def test_few_queries_project_what_they_sampled_instead_of_the_memory(corners):
    sizes, frames, heads = ((5, 4), (3, 2)), 2, 2
    rng = np.random.default_rng(corners)
    query, memory = (rng.standard_normal((frames, n, 8), np.float32) for n in (3, 26))
    references = rng.uniform(-0.1, 1.1, (frames, 3, 2, corners)).astype(np.float32)
    valid = np.ones((frames, 26), bool)
    valid[1, 10:20] = valid[1, 23:] = False
    module = deformable_transformer.DeformableAttention(heads, 3, jnp.float32)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), query, references, memory, sizes, valid))
    weights = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes)
    weigh = rng.standard_normal((frames, 3, 8), np.float32)

    def products(weights, query, references, memory, repeats):
        """How many products have one row for each position of the memory, and the gradients."""

        def loss(weights, query, references, memory):
            query, references = (jnp.tile(x, (1, repeats, *[1] * (x.ndim - 2))) for x in (query, references))
            found = module.apply(weights, query, references, memory, sizes, valid)
            return (found * jnp.tile(weigh, (1, repeats, 1))).sum() / repeats, found[:, :3]

        everything = weights, query, references, memory
        of_memory = str(jax.make_jaxpr(loss)(*everything)).count(f'f32[{frames},26,8] = dot_general')
        return of_memory, jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(*everything)

    (few, found), (many, expected) = (products(weights, query, references, memory, repeats) for repeats in (1, 5))
    assert (few, many) == (0, 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(found))


def test_roberta_equals_the_release():
    arrays, meaning = golden_cases.load('comp_roberta')
    module = roberta.Roberta(roberta.Size(vocabulary=120, channels=48, layers=2, heads=4, mlp=96, positions=40))
    text = types.Text(arrays['in/input_ids'].astype(np.int32), arrays['in/attention_mask'] == 1)
    weights = parameters(meaning['weights']['names'], 'text_backbone', module, text)
    words, sentence = module.apply({'params': weights}, text)
    np.testing.assert_allclose(words, arrays['out/last_hidden_state'], atol=1e-4)
    np.testing.assert_allclose(sentence, arrays['out/pooler_output'], atol=1e-4)
    long = types.Text(jnp.zeros((1, 39), jnp.int32), jnp.ones((1, 39), bool))
    with pytest.raises(ValueError, match='39 tokens per sentence need 41 positions'):
        module.apply({'params': weights}, long)


def test_without_box_refinement_points_stay():
    module = deformable_transformer.DeformableTransformer(
        hidden=32, levels=2, mlp=32, heads=2, encoder_layers=1, decoder_layers=2, box_refinement=False
    )
    rng = np.random.default_rng(0)
    levels = [rng.standard_normal((1, n, n, 32), dtype=np.float32) for n in (4, 2)]
    valid = [np.ones(x.shape[:3], bool) for x in levels]
    content, embedding = rng.standard_normal((2, 3, 32), dtype=np.float32)
    inputs = levels, valid, content[None], embedding
    weights = module.init(jax.random.key(0), *inputs, method='decode')
    _, boxes, points = module.apply(weights, *inputs, method='decode')
    np.testing.assert_array_equal(points[0], points[1])
    assert boxes.shape == (2, 1, 3, 4)


@pytest.mark.parametrize(
    'layer, x',
    [
        (layers.dense(4000, 16), np.ones((1, 16), np.float32)),
        (layers.conv(400, (3, 3), 7), np.ones((1, 5, 5, 7), np.float32)),
    ],
)
def test_initialisation_equals_pytorch(layer, x):
    """Kernels (kaiming_uniform_ with a = sqrt(5)) and biases are uniform within 1/sqrt(fan in)."""
    bound = {16: 1 / 4, 7: 1 / np.sqrt(63)}[x.shape[-1]]
    for start in jax.tree.leaves(layer.init(jax.random.key(0), x)):
        edges = np.quantile(start, [0, 0.25, 0.5, 0.75, 1])
        np.testing.assert_allclose(edges / bound, [-1, -0.5, 0, 0.5, 1], atol=0.12)


def test_initializers_can_be_overridden():
    layer = layers.dense(3, 4, kernel_init=nn.initializers.constant(2), bias_init=nn.initializers.constant(3))
    start = layer.init(jax.random.key(0), np.ones((1, 4), np.float32))['params']
    assert (start['kernel'] == 2).all() and (start['bias'] == 3).all()


def test_initial_boxes_are_small():
    """The first layer's are sigmoid(-2) of the frame, at the query's point; later layers keep them."""
    module = deformable_transformer.DeformableTransformer(hidden=32, decoder_layers=3)
    states = np.random.default_rng(0).standard_normal((1, 4, 32), dtype=np.float32)
    point, box = np.full((1, 4, 2), 0.3, np.float32), np.float32([[[0.3, 0.7, 0.2, 0.1]] * 4])
    for layer, start, expected in ((0, point, [0.3, 0.3, 0.1192, 0.1192]), (1, box, box[0, 0]), (2, box, box[0, 0])):
        found, _ = module.init_with_output(jax.random.key(0), layer, states, start, method='box')
        np.testing.assert_allclose(found, np.broadcast_to(expected, (1, 4, 4)), atol=1e-4)


@pytest.mark.parametrize('config', [common, ytvos_fast, ytvos_soc])
def test_dropout_and_dtypes_by_shapes_only(config):
    """Every layer computes in bfloat16, except those that predict positions and scores; no step uses dropout unless
    train is set."""
    config = config.get_config().model
    config.update(backbone='demo', text_encoder='demo', dtype='bfloat16', text_dropout=0.5)
    model, types_of, key = systems.build_model(config), {}, jax.random.key(0)
    clip = types.Clip(np.zeros((1, 2, 160, 160, 3), np.float32), np.ones((1, 2, 160, 160), bool), np.full((1, 2), 160))
    text = types.Text(np.zeros((1, 4), np.int32), np.ones((1, 4), bool))

    def record(call, arguments, options, context):
        result = call(*arguments, **options)
        kinds = nn.Dense | nn.DenseGeneral | nn.Conv | nn.Embed | nn.LayerNorm | nn.GroupNorm
        if context.method_name == '__call__' and isinstance(context.module, kinds):
            types_of['/'.join(context.module.path)] = str(result.dtype)
        return result

    def init(key):
        with nn.intercept_methods(record):
            return model.init({'params': key, 'dropout': key}, clip, text, queries.best_query, train=True)

    def steps(parameters):
        video = model.apply(parameters, clip, method='encode_video')
        words = model.apply(parameters, text, method='encode_text')
        return model.apply(parameters, video, words, method='segment')

    jax.eval_shape(steps, jax.eval_shape(init, key))  # Flax refuses to drop without a key.
    exact = {path for path, dtype in types_of.items() if dtype == 'float32'}
    assert len(types_of) > 200 and set(types_of.values()) == {'bfloat16', 'float32'}
    assert {re.sub(r'\d', '', path) for path in exact} == {
        'transformer/encoder/attention/offsets',
        'transformer/decoder/attention/offsets',
        'transformer/reference_points',
        'transformer/box_head/layer',
        'class_heads_',
    }


def test_pooler_initialisation_equals_hugging_face():
    module = roberta.Roberta(roberta.Size(vocabulary=10, channels=64, layers=0, heads=1, mlp=1, positions=9))
    text = types.Text(np.ones((1, 3), np.int32), np.ones((1, 3), bool))
    pooler = module.init(jax.random.key(0), text)['params']['pooler']
    np.testing.assert_allclose(np.std(pooler['kernel']), transformers.RobertaConfig().initializer_range, rtol=0.05)
    assert not pooler['bias'].any()


def test_padding_does_not_blow_up_the_first_gradient():
    """Each LayerNorm multiplies the gradient of zero pixels that stay zero by about 300."""
    frames = np.random.default_rng(0).standard_normal((1, 2, 64, 64, 3), dtype=np.float32)
    frames[:, :, 32:] = 0
    module = video_swin.VideoSwin(video_swin.Size(16, (2, 2, 1, 1), (1, 1, 1, 1)), drop_path=0.0)
    weights = jax.jit(module.init)(jax.random.key(0), frames)
    loss = lambda p: sum(jnp.abs(x).mean() for x in module.apply(p, frames))
    norms = jax.tree.map(jnp.linalg.norm, jax.jit(jax.grad(loss))(weights))
    assert max(jax.tree.leaves(norms)) < 100


def products(function, *arguments):
    """Types of the operands of every matrix product and convolution of a function."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name in ('dot_general', 'conv_general_dilated'):
                yield tuple(str(x.aval.dtype) for x in equation.invars)
            for inner in jax.core.jaxprs_in_params(equation.params):
                yield from walk(inner)

    return list(walk(jax.make_jaxpr(function)(*arguments).jaxpr))


def test_every_product_of_the_backbone_is_in_its_dtype():
    frames = jax.ShapeDtypeStruct((1, 2, 64, 64, 3), jnp.float32)
    for dtype in ('bfloat16', 'float32'):
        model = video_swin.VideoSwin(video_swin.SIZES['demo'], dtype=jnp.dtype(dtype))
        shapes = jax.eval_shape(model.init, jax.random.key(0), frames)
        found = products(model.apply, shapes, frames)
        # The patch embedding, six of each block, three mergings.
        assert len(found) == 1 + 4 * 6 + 3 and set(found) == {(dtype, dtype)}


def test_initial_patch_embedding_is_that_of_torch():
    """Uniform within one over the square root of what goes into an output: 4x4 pixels of 3 channels."""
    model = video_swin.VideoSwin(video_swin.Size(512, (1,), (1,)))
    start = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1, 8, 8, 3)))['params']['patch_embedding']
    for x in start.values():
        assert 0.99 < np.abs(x).max() * 48**0.5 < 1


def test_only_the_first_box_head_starts_with_small_boxes():
    """As in Deformable DETR: all start from no offset; the sizes of the first by the sigmoid of -2."""
    model = deformable_transformer.DeformableTransformer(
        hidden=32, levels=2, mlp=32, heads=2, points=1, encoder_layers=1, decoder_layers=3
    )
    shapes = [(1, 4, 4), (1, 2, 2)]

    def start(model):
        memory = model.encode(
            [jnp.zeros((*s, 32)) for s in shapes],
            [jnp.ones(s, bool) for s in shapes],
            [jnp.zeros((*s, 32)) for s in shapes],
        )
        return [head(memory[0]) for head in model.box_heads]

    found = jax.jit(lambda key: model.init(key, method=start))(jax.random.key(0))['params']
    for i in range(3):
        last = max(name for name in found[f'box_head{i}'])
        np.testing.assert_array_equal(found[f'box_head{i}'][last]['kernel'], 0)
        np.testing.assert_array_equal(found[f'box_head{i}'][last]['bias'], [0, 0, -2, -2] if i == 0 else 0)


def test_frames_are_normalised_and_padding_is_zero():
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 2, 8, 16, 3)
    valid = np.random.default_rng(0).random((1, 2, 8, 16)) < 0.7
    expected = (frames / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225] * valid[..., None]
    for call in (features.normalise, jax.jit(features.normalise)):
        found = call(frames, valid)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)
