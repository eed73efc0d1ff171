"""Every experiment, in every mode, fits itself."""
import jax
import pytest

from configs import davis_small, synthetic, ytvos
from sgmg_jax import systems
from sgmg_jax.data import augment
from sgmg_jax.training import step


@pytest.mark.parametrize('mode', ['full', 'smoke'])
@pytest.mark.parametrize('experiment', [davis_small, synthetic, ytvos])
def test_config(experiment, mode):
    config = experiment.get_config(mode)
    init, _, schedule = step.init_state(systems.build_model(config.model), config)
    state = jax.eval_shape(init, jax.random.key(0))
    assert state.trainable
    assert schedule(config.steps) <= 1
    height, width = config.data.frame_size
    assert height % 16 == width % 16 == 0
    augmentation = augment.Augmentation(**config.data.augmentation)
    assert augmentation.max_size <= max(height, width)
    assert set(config.data.augmentation) == set(augment.Augmentation.__dataclass_fields__) - {'order'}
    assert (config.steps <= 2) == (mode == 'smoke')
