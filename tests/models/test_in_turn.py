"""Equal layers applied by one repeated program, as for TPUs, give what they give one by one."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmg_jax import compilation
from sgmg_jax.models import deformable_transformer, in_turn, roberta, video_swin
from sgmg_jax.types import Text

RNG = np.random.default_rng(0)


def filled(module, *inputs, method=None):
    """Random parameters of a module."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, method=method))['params']
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), shapes)


def on(platform, function, *arguments):
    """The result, compiled in the form for a platform, and the number of loops in it."""
    with compilation.tracing_for(platform):
        # A new function, because jit remembers what it has traced.
        traced = jax.jit(lambda *arguments: function(*arguments)).trace(*arguments)
        return traced.lower().compile()(*arguments), str(traced.jaxpr).count(' scan[')


def check(function, parameters, *inputs, loops):
    """Outputs, and gradients of parameters and inputs; `loops`: how many the form for TPUs has."""
    outputs = jax.tree.map(np.asarray, on('cpu', function, parameters, *inputs)[0])
    weights = jax.tree.map(lambda x: RNG.normal(size=x.shape).astype(x.dtype), outputs)

    def total(parameters, *inputs):
        made = function(parameters, *inputs)
        return sum((x * w).sum() for x, w in zip(jax.tree.leaves(made), jax.tree.leaves(weights)))

    gradient = jax.grad(total, argnums=tuple(range(1 + len(inputs))))
    ours, count = on('tpu', function, parameters, *inputs)
    assert count == loops
    for actual, expected in (
        (ours, outputs),
        (on('tpu', gradient, parameters, *inputs)[0], on('cpu', gradient, parameters, *inputs)[0]),
    ):
        for (path, a), e in zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
            scale = np.abs(e).max()
            np.testing.assert_allclose(a, e, atol=2e-5 * max(scale, 1), err_msg=jax.tree_util.keystr(path))


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize('remat', ['hidden', 'blocks'])
def test_pairs_of_blocks(remat):
    """Only the stage of six blocks is repeated; an odd number, and two, are written out. Padded frames and pixels."""
    size = video_swin.Size(8, (2, 1, 6, 3), (1, 1, 2, 2))
    model = video_swin.VideoSwin(size, remat=remat)
    frames, real = normal(2, 3, 70, 150, 3), np.array([[True, True, False], [True] * 3])
    shape = np.array([[60, 150], [70, 100]], np.int32)

    def run(parameters, frames):
        return model.apply({'params': parameters}, frames, real, False, shape)

    check(run, filled(model, frames), frames, loops=1)


def test_every_block_has_its_own_drop_rate(monkeypatch):
    """If no branch is dropped, each is still divided by one minus its rate."""
    monkeypatch.setattr(jax.random, 'bernoulli', lambda key, p, shape: jnp.ones(shape, bool))
    model = video_swin.VideoSwin(video_swin.Size(8, (2, 1, 6, 1), (1, 1, 2, 2)), drop_path=0.5)
    frames = normal(1, 2, 64, 96, 3)

    def run(parameters, frames):
        return model.apply({'params': parameters}, frames, None, True, rngs={'dropout': jax.random.key(0)})

    check(run, filled(model, frames), frames, loops=1)


@pytest.mark.parametrize('refines, loops', [(True, 2 + 1 + 2 * 2), (False, 2 + 1 + 2)])
def test_layers_of_the_transformer(refines, loops):
    """With box refinement the first decoder layer starts from points, and is not among those that are repeated. Each
    program of an encoder layer has a loop in its sampling, of a decoder layer two: of its memory, and of what of it is
    not padding."""
    model = deformable_transformer.DeformableTransformer(
        hidden=16, levels=2, mlp=16, heads=2, encoder_layers=3, decoder_layers=4, dropout=0.0, box_refinement=refines
    )
    levels = [normal(2, 5, 6, 16), normal(2, 3, 3, 16)]
    valid = [np.ones(x.shape[:3], bool) for x in levels]
    valid[0][1, 4:] = valid[1][1, 2:] = False
    queries, embedding = normal(2, 3, 16), normal(3, 16)

    def run(model, levels, queries, embedding):
        memory = model.encode(levels, valid, levels)
        return memory, model.decode(memory, valid, queries, embedding)

    parameters = filled(model, levels, queries, embedding, method=run)
    check(
        lambda parameters, *inputs: model.apply({'params': parameters}, *inputs, method=run),
        parameters,
        levels,
        queries,
        embedding,
        loops=loops,
    )


def test_layers_of_the_text_encoder():
    size = roberta.Size(vocabulary=20, channels=16, layers=3, heads=2, mlp=24, positions=12)
    model = roberta.Roberta(size)
    text = Text(np.array([[0, 5, 7, 2], [0, 9, 2, 1]], np.int32), np.array([[True] * 4, [True] * 3 + [False]]))
    check(lambda parameters: model.apply({'params': parameters}, text), filled(model, text), loops=1)


class Noise(nn.Module):
    """Two dropouts in each of five layers, of a large array of ones."""

    train: bool = True

    @nn.compact
    def __call__(self, x):
        def step(dropouts, x, value):
            first, second = (dropout(x) > 0 for dropout in dropouts)
            return x, (first, second, value)

        layers = [[nn.Dropout(0.5, deterministic=not self.train) for _ in range(2)] for _ in range(5)]
        return in_turn.in_turn(self, step, layers, x, np.arange(5))[1]


@pytest.mark.parametrize('platform', ['cpu', 'tpu'])
def test_every_dropout_of_every_layer_draws_for_itself(platform):
    x = jnp.ones(4096)
    (first, second, values), loops = on(platform, lambda key: Noise().apply({}, x, rngs={'dropout': key}), KEY)
    assert loops == (platform == 'tpu') and list(values) == [0, 1, 2, 3, 4]
    masks = np.concatenate([first, second])
    agreement = (masks[:, None] == masks).mean(-1)
    assert np.abs(agreement - np.eye(10) - 0.5 * (1 - np.eye(10))).max() < 0.05


KEY = jax.random.key(3)


@pytest.mark.parametrize('platform', ['cpu', 'tpu'])
def test_without_training_no_random_stream_is_needed(platform):
    first, *_ = on(platform, lambda x: Noise(train=False).apply({}, x), jnp.ones(8))[0]
    assert first.all()
