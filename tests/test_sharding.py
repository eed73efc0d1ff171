"""Sharded equals unsharded, on four virtual devices in a process of their own."""
import os
import subprocess
import sys
import textwrap

import pytest

PROGRAM = '''
    import jax, numpy as np, sys
    import jax.numpy as jnp
    from sgmg_jax import sharding, types
    from sgmg_jax.losses import matching, sgmg as loss
    from sgmg_jax.models import multi_instance, roberta, sgmg, spectral_fusion, video_swin
    from sgmg_jax.ops import queries

    assert jax.device_count() == 4
    kind, E = {'sgmg': (sgmg.SgMg, 1), 'fast_sgmg': (multi_instance.FastSgMg, 2)}[sys.argv[1]]
    model = kind(
        backbone=video_swin.Size(8, (1, 1, 1, 1), (1, 1, 1, 1)),
        text_encoder=roberta.Size(vocabulary=20, channels=16, layers=1, heads=2, mlp=16, positions=12),
        # Not 32: with as many groups as channels every channel's mean is zero but for rounding, and the
        # ReLU after the spectrum's first convolution has its kink there.
        hidden=64, queries=3, levels=3, heads=2, points=2, encoder_layers=1, decoder_layers=1, mlp=32,
        dropout=0, text_dropout=0, drop_path=0)
    rng = np.random.default_rng(0)
    B, T, S = 4, 2, 80
    valid = np.ones((B, T, S, S), bool)
    valid[1, :, 70:] = False
    clip = types.Clip(rng.standard_normal((B, T, S, S, 3), dtype=np.float32), valid,
                      np.array([[80, 80], [70, 80], [80, 80], [80, 80]], np.int32))
    N = B * E
    lengths = np.array([6, 3, 5, 4, 2, 0, 6, 0])[:N, None]
    text = types.Text(rng.integers(3, 20, (N, 6)).astype(np.int32), np.arange(6)[None] < lengths)
    masks = rng.random((N, T, S, S)) < .3
    targets = types.Targets(masks, rng.uniform(.2, .6, (N, T, 4)).astype(np.float32), rng.random((N, T)) < .8,
                            np.repeat(clip.size, E, axis=0), lengths[:, 0] > 0)
    example = types.Example(clip, text, targets)
    parameters = jax.jit(lambda k: model.init(k, clip, text, queries.best_query)['params'])(jax.random.key(0))

    def objective(parameters, example):
        outputs = model.apply({'params': parameters}, example.clip, example.text,
                              lambda p: matching.match(p, example.targets))
        return loss.loss(outputs, example.targets)[0], outputs[1]

    gradient = jax.value_and_grad(objective, has_aux=True)
    (expected, query), expected_gradient = jax.jit(gradient)(parameters, example)
    for fsdp in (1, 2):
        mesh = sharding.make_mesh(fsdp)
        with jax.set_mesh(mesh):
            shardings = sharding.parameter_shardings(mesh, parameters, minimum=512)
            placed = jax.device_put(parameters, shardings)
            split = [not x.sharding.is_fully_replicated for x in jax.tree.leaves(placed)]
            assert any(split) == (fsdp == 2)
            (value, ours), ours_gradient = jax.jit(gradient)(placed, sharding.global_batch(mesh, example))
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        np.testing.assert_array_equal(ours, query)
        for a, b in zip(jax.tree.leaves(ours_gradient), jax.tree.leaves(expected_gradient)):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * max(1, np.abs(b).max()))

    mesh = sharding.make_mesh()
    augment = spectral_fusion.SpectrumAugmentation()
    x = rng.standard_normal((8, 6, 5, 32), dtype=np.float32)
    gaussian = np.ones((6, 5), np.float32)
    weights = augment.init(jax.random.key(0), x, gaussian)
    with jax.set_mesh(mesh):
        compiled = jax.jit(lambda w, x: augment.apply(w, x, gaussian)).lower(
            weights, sharding.global_batch(mesh, x)).compile()
    assert 'fft' in compiled.as_text() and 'all-gather' not in compiled.as_text()
    print('equal')
'''


@pytest.mark.parametrize('model', ['sgmg', 'fast_sgmg'])
def test_sharded_equals_unsharded(model):
    environment = os.environ | {'XLA_FLAGS': '--xla_force_host_platform_device_count=4', 'JAX_PLATFORMS': 'cpu'}
    result = subprocess.run([sys.executable, '-c', textwrap.dedent(PROGRAM), model], env=environment, text=True,
                            capture_output=True, timeout=900)
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.splitlines()[-1] == 'equal'
