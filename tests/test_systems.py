"""Full-size models, by shapes only."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import pytest

from configs import common, ytvos_soc
from sgmg_jax import systems, types
from sgmg_jax.ops import queries


@pytest.mark.parametrize(
    'config, backbone, count',
    [
        (common, 'tiny', 177_877_628),
        (common, 'small', 199_536_236),
        (common, 'base', 238_382_430),
        (ytvos_soc, 'tiny', 174_123_480),
        (ytvos_soc, 'small', 195_782_088),
        (ytvos_soc, 'base', 234_615_482),
    ],
)
def test_parameter_counts_equal_the_release(config, backbone, count):
    config = config.get_config().model
    config.backbone = backbone
    model = systems.build_model(config)
    shapes = systems.parameter_shapes(model)
    assert sum(np.prod(x.shape, dtype=int) for x in jax.tree.leaves(shapes)) == count


def outputs(model, parameters, shape, sentences):
    """Shapes of the model's outputs for clips [B T H W]."""

    def apply(parameters):
        clip = types.Clip(jnp.zeros((*shape, 3)), jnp.ones(shape, bool), jnp.ones((shape[0], 2), int))
        text = types.Text(jnp.ones((sentences, 20), int), jnp.ones((sentences, 20), bool))
        return model.apply({'params': parameters}, clip, text, queries.best_query)

    return jax.eval_shape(apply, parameters)


def test_output_shapes_of_sgmg_at_full_size():
    model = systems.build_model(common.get_config().model)
    parameters = systems.parameter_shapes(model)
    proposals, query, chosen = outputs(model, parameters, (2, 5, 368, 640), sentences=2)
    assert proposals.scores.shape == (4, 2, 5, 5)
    assert proposals.boxes.shape == (4, 2, 5, 5, 4)
    assert proposals.mask_logits.shape == (4, 2, 5, 5, 46, 80, 16)
    assert query.shape == (1, 2)
    assert chosen.masks.shape == (1, 2, 5, 368, 640)


def test_output_shapes_of_soc_at_full_size():
    """A whole video, as in the release, with three sentences."""
    model = systems.build_model(ytvos_soc.get_config().model)
    proposals, query, chosen = outputs(model, systems.parameter_shapes(model), (1, 36, 360, 638), sentences=3)
    assert proposals.scores.shape == (1, 3, 36, 20) and proposals.alignment.shape == (1, 3, 20)
    assert proposals.mask_logits.shape == (1, 3, 36, 20, 90, 160, 1)
    assert query.shape == (1, 3) and chosen.masks.shape == (1, 3, 36, 90, 160)


@pytest.mark.parametrize('field', ['layers', 'parent'])
def test_unknown_model_field_is_an_error(field):
    """Flax's own fields are not settings."""
    config = ConfigDict(common.get_config().model)
    config[field] = 3
    with pytest.raises(ValueError, match=f'config.model.{field}: SgMg has no such field; it has .*hidden') as error:
        systems.build_model(config)
    assert not {'parent', 'name'} & set(str(error.value).rstrip('.').split('it has ')[1].split(', '))


@pytest.mark.parametrize('weights', ['released', 'paper'])
def test_loss_receives_config_loss(monkeypatch, weights):
    monkeypatch.setitem(
        systems.SYSTEMS,
        'soc',
        systems.SYSTEMS['soc']._replace(loss=lambda outputs, targets, weights, contrast: (outputs, weights, contrast)),
    )
    config = ytvos_soc.get_config()
    config.loss.update(weights=weights, contrast=False)
    assert systems.choose(config).loss('outputs', 'targets') == ('outputs', weights, False)


def test_fields_of_another_loss_are_named():
    config = ytvos_soc.get_config()
    config.loss.mask_scale = 2.0
    with pytest.raises(ValueError, match="mask_scale: the loss of 'soc' has no such field; it has weights, contrast"):
        systems.choose(config)
    config = common.get_config()
    config.loss.mask_scale = 2.0
    systems.choose(config)
    config.loss.contrast = True
    with pytest.raises(ValueError, match="contrast: the loss of 'sgmg' has no such field; it has mask_scale"):
        systems.choose(config)
