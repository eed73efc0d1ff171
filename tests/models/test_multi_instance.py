"""Fast SgMg: the paper's equations, and invariance to padding; on a small model with seeded weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmg_jax import systems, types
from sgmg_jax.losses import matching
from sgmg_jax.losses import sgmg as losses
from sgmg_jax.models import features, multi_instance, roberta, sgmg, spectral_fusion, video_swin
from sgmg_jax.ops import queries

SIDE, WIDTH, FRAMES = 80, 70, 2
FIELDS = dict(
    backbone=video_swin.Size(8, (1, 1, 1, 1), (1, 1, 2, 2)),
    text_encoder=roberta.Size(vocabulary=100, channels=16, layers=1, heads=2, mlp=16, positions=20),
    hidden=64,
    queries=3,
    levels=3,
    heads=2,
    points=2,
    encoder_layers=1,
    decoder_layers=2,
    mlp=32,
    dropout=0.0,
    text_dropout=0.0,
    drop_path=0.0,
)
SGMG = sgmg.SgMg(**FIELDS)


def fast(decoupling='residual'):
    return multi_instance.FastSgMg(**FIELDS, decoupling=decoupling)


@functools.cache
def parameters(decoupling='residual'):
    """Seeded; none is zero."""
    shapes = systems.parameter_shapes(fast(decoupling))
    rng = np.random.default_rng(0)

    def fill(path, x):
        spread = 0.1 if len(x.shape) == 1 else 1 / np.sqrt(np.prod(x.shape[:-1]))
        return (rng.normal(0, spread, x.shape) + (path[-1].key == 'scale')).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def make_clip(clips=1, seed=0):
    rng = np.random.default_rng(seed)
    valid = np.ones((clips, FRAMES, SIDE, SIDE), bool)
    valid[:, :, :, WIDTH:] = False
    frames = rng.standard_normal((*valid.shape, 3), dtype=np.float32) * valid[..., None]
    return types.Clip(frames, valid, np.full((clips, 2), (SIDE, WIDTH), np.int32))


def make_text(lengths, width=6, seed=0):
    """Sentences with these numbers of tokens; 0 for padding."""
    tokens = np.random.default_rng(seed).integers(3, 100, (9, 12))[: len(lengths), :width]
    valid = np.arange(width) < np.array(lengths)[:, None]
    return types.Text(np.where(valid, tokens, roberta.PADDING_ID).astype(np.int32), valid)


def rows(tree, chosen):
    return jax.tree.map(lambda x: x[np.array(chosen)], tree)


@functools.cache
def _forward(model):
    return jax.jit(lambda p, clip, text: model.apply({'params': p}, clip, text, queries.best_query))


def forward(model, clip, text, weights=None):
    """Mask logits of the best query, and scores of all queries, in the last layer, per sentence."""
    proposals, _, predictions = _forward(model)(parameters() if weights is None else weights, clip, text)
    return np.asarray(predictions.masks[0]), np.asarray(proposals.scores[-1])


def make_features():
    """features.VideoFeatures of a clip, without a backbone."""
    rng = np.random.default_rng(5)
    sizes = [(10, 10), (5, 5), (3, 3)]
    levels = tuple(rng.standard_normal((1, FRAMES, *size, SGMG.hidden), dtype=np.float32) for size in sizes)
    valid = tuple(np.arange(size[1]) < np.full((1, FRAMES, size[0], 1), -(-size[1] * WIDTH // SIDE)) for size in sizes)
    maps = (np.zeros((1, FRAMES, SIDE // stride, SIDE // stride, 1)) for stride in (4, 8))  # not used by `segment`
    return features.VideoFeatures(levels, valid, *maps, np.array([[SIDE, WIDTH]]))


def assert_close(ours, expected, tolerance=1e-5):
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(b).max()))


def make_words(lengths, channels=8, width=5):
    """spectral_fusion.Words of one clip."""
    rng = np.random.default_rng(1)
    own, positions = rng.standard_normal((2, 1, len(lengths), width, channels), dtype=np.float32)
    return spectral_fusion.Words(own, positions, np.arange(width) < np.array(lengths)[None, :, None])


def test_fusion_sums_over_sentences():
    """Eq. 4, sentence by sentence, in NumPy; a padded sentence adds nothing, not even a bias."""
    words, x = make_words([5, 3, 0, 1]), np.random.default_rng(2).standard_normal((1, 2, 3, 4, 8), dtype=np.float32)
    module = spectral_fusion.WordFusion(heads=2)
    rng = np.random.default_rng(3)
    weights = jax.tree.map(
        lambda w: rng.standard_normal(w.shape).astype(np.float32), module.init(jax.random.key(0), x, words)['params']
    )
    part = {name: (w['kernel'], w['bias']) for name, w in weights['attention'].items()}
    total = np.zeros((24, 8))
    for own, where, valid in zip(words.features[0], words.positions[0], words.valid[0]):
        if not valid.any():
            continue
        q, k, v = (
            np.einsum('nc,chd->hnd', y, part[name][0]) + part[name][1][:, None]
            for name, y in (('query', x.reshape(24, 8)), ('key', (own + where)[valid]), ('value', own[valid]))
        )
        logits = np.einsum('hpd,hld->hpl', q, k) / 2
        weight = np.exp(logits - logits.max(-1, keepdims=True))
        read = np.einsum('hpl,hld->phd', weight / weight.sum(-1, keepdims=True), v)
        total += np.einsum('phd,hdc->pc', read, part['out'][0]) + part['out'][1]
    np.testing.assert_allclose(
        module.apply({'params': weights}, x, words), x * total.reshape(x.shape), rtol=2e-4, atol=1e-4
    )


def test_one_sentence_without_decoupling_equals_sgmg():
    """Multi-instance fusion of one sentence is SgMg's; residual decoupling with zero attention changes nothing."""
    weights = dict(parameters())
    decouple = weights.pop('decouple')
    silent = decouple['attention'] | {'out': jax.tree.map(np.zeros_like, decouple['attention']['out'])}
    clip, text = make_clip(2), make_text([6, 4])
    assert_close(
        forward(fast(), clip, text, weights | {'decouple': {'attention': silent}}),
        forward(SGMG, clip, text, weights),
        1e-6,
    )
    assert np.abs(forward(fast(), clip, text)[0] - forward(SGMG, clip, text, weights)[0]).max() > 1e-2


@pytest.mark.parametrize('decoupling', multi_instance.DECOUPLINGS)
def test_sentences_can_be_permuted_and_padded(decoupling):
    """Permuting the sentences permutes the masks; padded sentences and tokens change nothing."""
    model, weights, text = fast(decoupling), parameters(decoupling), make_text([6, 3, 4])

    @jax.jit
    def segment(text):
        def call(module):
            proposals = module.segment(make_features(), module.encode_text(text))
            return tuple(jnp.moveaxis(x, 1, 0) for x in (proposals.mask_logits, proposals.scores, proposals.boxes))

        return model.apply({'params': weights}, method=call)

    bare = segment(text)
    assert_close(segment(rows(text, [2, 0, 1])), rows(bare, [2, 0, 1]))
    filled = segment(make_text([6, 3, 4, 0, 0], width=9))
    assert all(np.isfinite(x).all() for x in filled)
    assert_close(rows(filled, [0, 1, 2]), bare)
    twice = segment(rows(text, [0, 0, 1]))
    assert_close(rows(twice, [0]), rows(twice, [1]))


def test_clips_do_not_mix():
    clip, text = make_clip(2), make_text([6, 3, 4, 2])
    both = forward(fast(), clip, text)
    for i in range(2):
        assert_close(rows(both, [2 * i, 2 * i + 1]), forward(fast(), rows(clip, [i]), rows(text, [2 * i, 2 * i + 1])))


def test_sentences_interact_only_through_the_shared_memory():
    clip, text = make_clip(), make_text([6, 3, 4])
    model = fast()

    def run(module, text, shared=None):
        """Mask logits with the given shared memory, or with the computed one; that memory; mask logits by `segment`."""
        video, words = module.encode_video(clip), module.encode_text(text)
        of_clip = features.words_of_clips(words, 1)
        shared = module.encode(module.fuse(video, of_clip), video, False) if shared is None else shared
        memory, content = module.decouple(
            shared, video.valid, of_clip, module.query_content(words, shared), module.query_embedding
        )
        proposals = module.propose(memory, features.repeat_for_sentences(video, words), content, False)
        return proposals.mask_logits, shared, module.segment(video, words).mask_logits

    apply = jax.jit(lambda text, shared=None: model.apply({'params': parameters()}, text, shared, method=run))
    together, shared, whole = apply(text)
    assert_close([together], [whole])
    alone, _, _ = apply(rows(text, [1]), shared)
    assert_close([alone[:, 0]], [together[:, 1]])
    without, _, _ = apply(rows(text, [1]))
    assert np.abs(without[:, 0] - together[:, 1]).max() > 1e-2 * np.abs(together[:, 1]).max()


def make_targets(clips, sentences, asked, seed=0):
    rng = np.random.default_rng(seed)
    masks = rng.random((clips * sentences, FRAMES, SIDE, SIDE)) < 0.3
    asked = np.array(asked)
    present = np.ones((len(masks), FRAMES), bool) & asked[:, None]
    boxes = rng.uniform(0.2, 0.5, (*present.shape, 4)).astype(np.float32) * present[..., None]
    return types.Targets(
        masks & present[..., None, None], boxes, present, np.full((len(masks), 2), (SIDE, WIDTH), np.int32), asked
    )


@functools.cache
def _gradient(decoupling):
    model = fast(decoupling)

    def total(weights, words, clip, text, targets):
        def call(module):
            """SgMg.__call__ with `words` added to the sentences' features."""
            video, of_text = module.encode_video(clip), module.encode_text(text)
            of_text = dataclasses.replace(of_text, words=of_text.words + words[0], sentence=of_text.sentence + words[1])
            proposals = module.segment(video, of_text)
            query = matching.match(proposals, targets)
            chosen = types.Predictions(
                *(queries.take_query(x, query) for x in (proposals.scores, proposals.boxes)),
                module.optimize(queries.take_query(proposals.mask_logits, query), video),
            )
            return losses.loss((proposals, query, chosen), targets)[0]

        return model.apply({'params': weights}, method=call)

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1)))


@pytest.mark.parametrize('decoupling', ['residual', 'words'])
def test_gradients_reach_everything_except_padding(decoupling):
    clip, text = make_clip(2), make_text([6, 3, 0, 4, 0, 0])
    targets = make_targets(2, 3, [True, True, False, True, False, False])
    words = np.zeros((6, 6, SGMG.hidden), np.float32), np.zeros((6, SGMG.hidden), np.float32)
    loss, (to_weights, to_words) = _gradient(decoupling)(parameters(decoupling), words, clip, text, targets)
    assert np.isfinite(loss)
    norms = jax.tree_util.tree_leaves_with_path(jax.tree.map(np.linalg.norm, to_weights))
    silent = [jax.tree_util.keystr(path) for path, norm in norms if not 0 < norm < np.inf]
    # A key bias shifts all logits equally: its gradient is zero up to rounding.
    assert [path for path in silent if not path.endswith("['key']['bias']")] == []
    for x in to_words:
        of_sentence = np.abs(x).reshape(6, -1).max(1)
        assert (of_sentence[[2, 4, 5]] == 0).all() and (of_sentence[[0, 1, 3]] > 0).all()


def test_padded_sentences_do_not_affect_the_loss():
    rng = np.random.default_rng(0)
    proposals = types.Proposals(
        rng.standard_normal((2, 4, FRAMES, 3), dtype=np.float32),
        rng.random((2, 4, FRAMES, 3, 4), dtype=np.float32),
        rng.standard_normal((2, 4, FRAMES, 3, SIDE // 8, SIDE // 8, 16), dtype=np.float32),
    )
    targets, kept = make_targets(2, 2, [True, True, True, False]), [0, 1, 2]

    def everything(proposals, targets):
        query = matching.match(proposals, targets)
        predictions = types.Predictions(
            *(queries.take_query(x, query) for x in (proposals.scores, proposals.boxes)),
            jnp.repeat(queries.take_query(proposals.mask_logits, query)[..., 0], 8, -1).repeat(8, -2),
        )
        return losses.loss((proposals, query, predictions), targets)

    fewer = jax.tree.map(lambda x: x[:, np.array(kept)], proposals), rows(targets, kept)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5), everything(proposals, targets), everything(*fewer)
    )


def test_unknown_decoupling_is_an_error():
    with pytest.raises(ValueError, match="decoupling = 'sum': must be one of residual, product, words, queries, none"):
        jax.eval_shape(lambda key: systems.init_parameters(fast('sum'), key), jax.random.key(0))


def test_additional_sentences_cost_little_at_full_size():
    """The encoder runs once for all sentences: FLOPs of ten sentences against one, as traced."""
    model = multi_instance.FastSgMg(video_swin.SIZES['tiny'], roberta.SIZES['base'])
    weights = systems.parameter_shapes(model)

    def flops(sentences):
        shape = 1, 5, 368, 640
        clip, text = jax.eval_shape(
            lambda: (
                types.Clip(jnp.zeros((*shape, 3)), jnp.ones(shape, bool), jnp.zeros((1, 2), int)),
                types.Text(jnp.zeros((sentences, 16), int), jnp.ones((sentences, 16), bool)),
            )
        )
        forward = jax.jit(lambda p, clip, text: model.apply({'params': p}, clip, text, queries.best_query)[2].masks)
        assert jax.eval_shape(forward, weights, clip, text).shape == (1, sentences, 5, 368, 640)
        return forward.lower(weights, clip, text).cost_analysis()['flops']

    one, ten = flops(1), flops(10)
    assert (ten - one) / 9 < 0.1 * one  # an encoder per sentence would be a third
