"""The switches of the papers' ablations: each changes its own part of the model and nothing else."""

import functools

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ytvos, ytvos_soc
from sgmg_jax import systems, types
from sgmg_jax.convert import weights
from sgmg_jax.losses import matching
from sgmg_jax.models import features, object_cluster, roberta, spectral_fusion, video_swin
from sgmg_jax.models.sgmg import SgMg
from sgmg_jax.models.soc import SOC
from sgmg_jax.ops import dynamic_conv

SHARED = dict(
    backbone=video_swin.Size(8, (1, 1, 1, 1), (1, 1, 2, 2)),
    text_encoder=roberta.Size(vocabulary=100, channels=16, layers=1, heads=2, mlp=16, positions=20),
    queries=2,
    levels=3,
    heads=2,
    points=1,
    encoder_layers=1,
    decoder_layers=1,
    mlp=16,
    dropout=0.0,
    text_dropout=0.0,
    drop_path=0.0,
)
DEFAULTS = {
    SgMg: SHARED | dict(hidden=32, fusion='spectrum', labels=16, optimizer=True, feature_decoder=False),
    SOC: SHARED
    | dict(
        hidden=128,
        cluster_encoder_layers=1,
        cluster_decoder_layers=1,
        cluster_mlp=16,
        fusion_direction='both',
        aggregation='cluster',
    ),
}
SYSTEM = {SgMg: systems.SYSTEMS['sgmg'], SOC: systems.SYSTEMS['soc']}
AUGMENTED = {f'augment_{side}_{level}' for side in ('before', 'after') for level in range(3)}
CLUSTER_ENCODER = {'object_cluster/encoder0_attention', 'object_cluster/encoder0_attention_norm'} | {
    'object_cluster/encoder0_feed_forward'
}
# Model, its switches, and the beginnings of the paths of all parameters that they remove, change or add.
SWITCHES = [
    (SgMg, dict(fusion='attention'), AUGMENTED),
    (SgMg, dict(fusion='convolution'), AUGMENTED),
    (SgMg, dict(fusion='linear'), AUGMENTED),
    (SgMg, dict(labels=1), {'patch_kernels/controller/layer2', 'mask_optimizer'}),
    (SgMg, dict(optimizer=False), {'mask_optimizer'}),
    (
        SgMg,
        dict(optimizer=False, feature_decoder=True),
        {'mask_optimizer', 'feature_pyramid', 'patch_kernels/controller/layer2'},
    ),
    (SOC, dict(fusion_direction='to_vision'), {'fusion/to_language'}),
    (SOC, dict(fusion_direction='to_language'), {'fusion/to_vision'}),
    (SOC, dict(fusion_direction='none'), {'fusion'}),
    (SOC, dict(aggregation='k-means'), {'object_cluster'}),
    (SOC, dict(aggregation='convolution'), {'object_cluster'}),
    (SOC, dict(cluster_encoder_layers=0), CLUSTER_ENCODER),
    (SOC, dict(cluster_decoder_layers=0), {'object_cluster'}),
]


@functools.cache
def shapes(model):
    return {path: x.shape for path, x in traverse_util.flatten_dict(systems.parameter_shapes(model), sep='/').items()}


def build(module, **switches):
    return module(**DEFAULTS[module] | switches)


@pytest.mark.parametrize('module, switches, parts', SWITCHES, ids=lambda x: str(x) if isinstance(x, dict) else '')
def test_a_switch_changes_the_parameters_of_its_part_only(module, switches, parts):
    usual, switched = shapes(build(module)), shapes(build(module, **switches))
    changed = {path for path in usual.keys() | switched.keys() if usual.get(path) != switched.get(path)}
    assert changed and {path for path in changed if not path.startswith(tuple(f'{part}/' for part in parts))} <= parts
    for part in parts:
        assert any(path.startswith(f'{part}/') for path in changed), part


def test_only_released_models_have_official_names():
    """A variant's weights would load into the authors' code in part, or not at all."""
    for module, switches, _ in SWITCHES:
        for fields in ({}, switches):
            parameters = {path: np.zeros(shape, np.float32) for path, shape in shapes(build(module, **fields)).items()}
            if fields:
                with pytest.raises(ValueError, match=f'variant of {module.__name__} that was not released'):
                    weights.released(parameters)
            else:
                assert weights.released(parameters)


def test_what_remains_of_the_cluster():
    def parts(**switches):
        return {path.split('/')[1] for path in shapes(build(SOC, **switches)) if path.startswith('object_cluster/')}

    assert parts(aggregation='k-means') == set() and parts(aggregation='convolution') == {'convolution'}
    encoder = {path.split('/')[1] for path in CLUSTER_ENCODER}
    assert parts(cluster_decoder_layers=0) == encoder and not parts(cluster_encoder_layers=0) & encoder
    assert parts(cluster_encoder_layers=0, cluster_decoder_layers=0) == set()


def test_the_defaults_are_the_released_models():
    for module, config in ((SgMg, ytvos.get_config()), (SOC, ytvos_soc.get_config())):
        fields = {field: x for field, x in config.model.items() if field in DEFAULTS[module].keys() - SHARED.keys()}
        assert len(fields) == len(DEFAULTS[module]) - len(SHARED)
        assert module(**fields) == module()
    assert config.loss.contrast


def test_parameters_of_table_h():
    """Of the layers before and after the attention of one level, at full size."""

    def millions(fusion):
        augmentation = spectral_fusion.AUGMENTATIONS[fusion]()
        parameters = jax.eval_shape(
            augmentation.init, jax.random.key(0), jnp.zeros((1, 4, 4, SgMg.hidden)), jnp.zeros((4, 4))
        )
        return round(2 * sum(x.size for x in jax.tree.leaves(parameters)) / 1e6, 1)

    assert [millions(fusion) for fusion in ('spectrum', 'convolution', 'linear')] == [2.4, 4.7, 2.4]


# Together they have every switch.
STEPS = [
    (SgMg, dict(fusion='attention', labels=1, optimizer=False), {}),
    (SgMg, dict(fusion='convolution', optimizer=False, feature_decoder=True), {}),
    (SgMg, dict(fusion='linear', labels=1), {}),
    (SOC, dict(fusion_direction='to_vision', aggregation='k-means'), {'contrast': False}),
    (SOC, dict(fusion_direction='to_language', aggregation='convolution'), {}),
    (SOC, dict(fusion_direction='none', cluster_decoder_layers=0), {}),
]
NEVER_TRAINED = (
    'video_encoder/',  # replaced below: it takes half of the compilation and has no switch
    'transformer/decoder0/self_attention/value/kernel',  # of queries that start from zeros
)


def example():
    rng = np.random.default_rng(0)
    shape = 1, 2, 80, 96
    tokens = rng.integers(3, 100, (1, 5)).astype(np.int32)
    masks = np.zeros(shape, bool)
    masks[:, :, 20:50, 30:70] = True
    size = np.array([[80, 96]], np.int32)
    boxes = np.tile(np.array([50 / 96, 35 / 80, 40 / 96, 30 / 80], np.float32), (1, 2, 1))
    return types.Example(
        types.Clip(rng.standard_normal((*shape, 3), np.float32), np.ones(shape, bool), size),
        types.Text(tokens, np.ones_like(tokens, bool)),
        types.Targets(masks, boxes, np.ones((1, 2), bool), size, np.ones(1, bool)),
    )


@pytest.mark.parametrize('module, switches, options', STEPS, ids=lambda x: str(x) if isinstance(x, dict) else '')
def test_a_training_step(module, switches, options, monkeypatch):
    """Losses follow the switches, and all parameters that remain are trained."""
    model, system, batch, rng = build(module, **switches), SYSTEM[module], example(), np.random.default_rng(0)
    parameters = {path: rng.normal(0, 0.1, shape).astype(np.float32) for path, shape in shapes(model).items()}
    maps = [rng.normal(0, 1, (1, 2, -(-80 // 2**i), 96 // 2**i, 2**i)).astype(np.float32) for i in (2, 3, 4, 5)]
    maps = [np.tile(x, 2) for x in maps]  # 8, 16, 32 and 64 channels
    monkeypatch.setattr(features, 'backbone_maps', lambda encoder, clip, *_: (maps, clip.valid))

    def objective(parameters):
        outputs = model.apply(
            {'params': traverse_util.unflatten_dict(parameters, sep='/')},
            batch.clip,
            batch.text,
            lambda proposals: system.match(proposals, batch.targets, None),
            train=True,
            rngs={'dropout': jax.random.key(0)},
        )
        proposals, _, _ = outputs
        total, named = system.loss(outputs, batch.targets, **options)
        return total, (named, proposals.mask_logits)

    (total, (named, logits)), gradients = jax.jit(jax.value_and_grad(objective, has_aux=True))(parameters)
    terms = {name.removeprefix('loss_') for name in named}
    if module is SgMg:
        refined = {'mask', 'dice'} if switches.get('optimizer', True) else set()
        assert terms == {'class', 'box', 'giou', 'mask_low', 'dice_low'} | refined
        cells = (20, 24) if switches.get('feature_decoder') else (10, 12)
        assert logits.shape[-3:] == (*cells, switches.get('labels', 16))
    else:
        contrast = {'contrast'} if options.get('contrast', True) else set()
        assert terms == {'class', 'box', 'giou', 'mask', 'dice'} | contrast
    assert np.isfinite(total)
    untrained = {path for path, x in gradients.items() if not np.abs(x).sum() > 0}
    # Without cluster decoder, nothing of SOC sees the sentence feature.
    unseen = ('text_backbone/pooler/',) if {'aggregation', 'cluster_decoder_layers'} & switches.keys() else ()
    assert not {path for path in untrained if not path.startswith(NEVER_TRAINED + unseen)}


def test_masks_have_full_resolution_without_optimizer():
    """Resized like any logits, from patches or from single labels."""
    rng = np.random.default_rng(0)
    stride4 = np.zeros((1, 1, 8, 12, 1), np.float32)
    video = features.VideoFeatures((), (), stride4, stride4[:, :, ::2, ::2], np.array([[32, 48]], np.int32))
    for labels in (1, 16):
        model = build(SgMg, optimizer=False, labels=labels)
        parameters = {'query_embedding': np.zeros((2, 32), np.float32)}
        cells = rng.normal(0, 1, (1, 1, 1, 4, 6, 1)).astype(np.float32)
        full = model.apply({'params': parameters}, np.repeat(cells, labels, -1), video, method='optimize')
        assert full.shape == (1, 1, 1, 32, 48)
        # The average of a cell's pixels is its logit, except what they share with their neighbours.
        pooled = full[0, 0, 0].reshape(4, 8, 6, 8)[:, 3:5, :, 3:5].mean((1, 3))
        np.testing.assert_allclose(pooled, cells[0, 0, 0, ..., 0], atol=0.3)


def test_targets_at_the_resolution_of_the_masks():
    """Half resolution takes odd pixels, as released; a coarser grid one pixel near each cell's centre."""
    pixels = np.arange(64).reshape(8, 8)
    assert (matching.at_resolution(pixels % 3 == 0, 4) == (pixels[1::2, 1::2] % 3 == 0)).all()
    assert (matching.at_resolution(pixels == 8 * 4 + 4, 1) == [[True]]).all()
    patches = np.arange(6.0).reshape(2, 3, 1)
    np.testing.assert_array_equal(dynamic_conv.pixel_shuffle(patches), patches[..., 0])


def test_k_means_and_averages():
    """Against Lloyd's algorithm in NumPy; padded frames are ignored, and empty centres stay."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (2, 1, 4, 3, 5)).astype(np.float32)
    real = np.array([[True, True, True, False], [True] * 4])
    average = object_cluster.mean_over_time(x, real)
    np.testing.assert_allclose(average[0, 0], x[0, 0, :3].mean(0), atol=1e-6)
    centres = np.array(average)
    centres[1, 0, 2] = 50  # no query is near
    found = object_cluster.cluster_by_means(x, real, centres)
    for i, frames in enumerate((3, 4)):
        points, expected = x[i, 0, :frames].reshape(-1, 5), centres[i, 0].copy()
        for _ in range(object_cluster.MEANS_STEPS):
            nearest = ((points[:, None] - expected) ** 2).sum(-1).argmin(1)
            for v in set(nearest):
                expected[v] = points[nearest == v].mean(0)
        np.testing.assert_allclose(found[i, 0], expected, atol=1e-5)


def test_wrong_values_are_named():
    for module, switches, message in (
        (SgMg, dict(fusion='fourier'), "fusion = 'fourier': must be one of spectrum, attention, convolution, linear"),
        (SgMg, dict(labels=4), 'labels = 4: must be one of 1, 16'),
        (SgMg, dict(feature_decoder=True), 'feature_decoder = True and optimizer = True: .* Set one of them to False'),
        (SOC, dict(fusion_direction='up'), "fusion_direction = 'up': must be one of both, to_vision, to_language"),
        (SOC, dict(aggregation='mean'), "aggregation = 'mean': must be one of cluster, k-means, convolution"),
    ):
        with pytest.raises(ValueError, match=message):
            systems.parameter_shapes(build(module, **switches))
