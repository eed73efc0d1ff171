"""Full-size models by their shapes alone."""
import jax
from ml_collections import ConfigDict
import numpy as np
import pytest

from configs import common, ytvos_soc
from sgmg_jax import systems, types
from sgmg_jax.ops import queries


@pytest.mark.parametrize('config, backbone, count', [
    (common, 'tiny', 177_877_628), (common, 'small', 199_536_236), (common, 'base', 238_382_430),
    (ytvos_soc, 'tiny', 174_123_480), (ytvos_soc, 'small', 195_782_088), (ytvos_soc, 'base', 234_615_482)])
def test_parameter_counts_are_the_releases(config, backbone, count):
    config = config.get_config().model
    config.backbone = backbone
    model = systems.build_model(config)
    shapes = systems.parameter_shapes(model)
    assert sum(np.prod(x.shape, dtype=int) for x in jax.tree.leaves(shapes)) == count


def test_shapes_at_the_sizes_of_the_release():
    model = systems.build_model(common.get_config().model)
    parameters = systems.parameter_shapes(model)
    clip = types.Clip(jax.ShapeDtypeStruct((2, 5, 368, 640, 3), 'float32'),
                      jax.ShapeDtypeStruct((2, 5, 368, 640), 'bool'), jax.ShapeDtypeStruct((2, 2), 'int32'))
    text = types.Text(jax.ShapeDtypeStruct((2, 20), 'int32'), jax.ShapeDtypeStruct((2, 20), 'bool'))
    proposals, query, chosen = jax.eval_shape(
        lambda p, c, t: model.apply({'params': p}, c, t, queries.best_query), parameters, clip, text)
    assert proposals.scores.shape == (4, 2, 5, 5)
    assert proposals.boxes.shape == (4, 2, 5, 5, 4)
    assert proposals.patch_masks.shape == (4, 2, 5, 5, 46, 80, 16)
    assert query.shape == (1, 2)
    assert chosen.masks.shape == (1, 2, 5, 368, 640)


def test_shapes_of_soc_at_the_sizes_of_the_release():
    """As released for a whole video; three sentences of it."""
    model = systems.build_model(ytvos_soc.get_config().model)
    spec = jax.ShapeDtypeStruct
    clip = types.Clip(spec((1, 36, 360, 638, 3), 'float32'), spec((1, 36, 360, 638), 'bool'), spec((1, 2), 'int32'))
    text = types.Text(spec((3, 20), 'int32'), spec((3, 20), 'bool'))
    parameters = systems.parameter_shapes(model)
    proposals, query, chosen = jax.eval_shape(
        lambda p, c, t: model.apply({'params': p}, c, t, queries.best_query), parameters, clip, text)
    assert proposals.scores.shape == (1, 3, 36, 20) and proposals.alignment.shape == (1, 3, 20)
    assert proposals.patch_masks.shape == (1, 3, 36, 20, 90, 160, 1)
    assert query.shape == (1, 3) and chosen.masks.shape == (1, 3, 36, 90, 160)


def test_an_unknown_field():
    config = ConfigDict(common.get_config().model)
    config.layers = 3
    with pytest.raises(ValueError, match='config.model.layers: SgMg has no such field; it has .*hidden'):
        systems.build_model(config)


@pytest.mark.parametrize('weights', ['released', 'paper'])
def test_the_loss_gets_the_options_of_config_loss(monkeypatch, weights):
    monkeypatch.setitem(systems.SYSTEMS, 'soc', systems.SYSTEMS['soc']._replace(
        loss=lambda outputs, targets, **options: (outputs, targets, options)))
    config = ytvos_soc.get_config()
    config.loss.weights = weights
    assert systems.choose(config).loss('outputs', 'targets') == ('outputs', 'targets', {'weights': weights})
