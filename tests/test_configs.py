"""Every experiment in every mode: its fields fit together."""

import functools
import importlib
import json
import pathlib
import re

from ml_collections import ConfigDict
import pytest

from configs import demo
from sgmg_jax import config as configs
from sgmg_jax import systems
from sgmg_jax.data import augment, clips
from sgmg_jax.inference import protocols
from sgmg_jax.training import optimizer as optimizers
from sgmg_jax.training import start

ROOT = pathlib.Path(__file__).parent.parent
EXPERIMENTS = sorted(path.stem for path in (ROOT / 'configs').glob('*.py') if path.stem not in ('__init__', 'common'))
# Small models, without a 'base'.
OWN_SIZES = 'davis_small', 'demo', 'studies', 'synthetic', 'synthetic_fast', 'synthetic_mevis', 'synthetic_soc'
CASES = [
    (experiment, mode)
    for experiment in EXPERIMENTS
    for mode in ('full', 'smoke', 'base', 'base,smoke')
    if experiment not in OWN_SIZES or 'base' not in mode
] + [('demo', 'motion'), ('demo', 'clips'), ('studies', 'soc'), ('studies', 'soc,smoke')]


@functools.lru_cache
def parameter_shapes(model):
    return systems.parameter_shapes(systems.build_model(ConfigDict(json.loads(model))))


@pytest.mark.parametrize('experiment, mode', CASES)
def test_config(experiment, mode):
    config = importlib.import_module(f'configs.{experiment}').get_config(mode)
    assert (config.model.backbone == 'base') == ('base' in mode)
    config = start.with_steps(config, clips=10_000)
    trainable, _ = optimizers.partition(parameter_shapes(config.model.to_json()), config.optimizer.freeze)
    _, schedule = optimizers.make_optimizer(config.optimizer, trainable, config.optimizer.batch_size)
    assert schedule(config.steps) <= 1
    if config.optimizer.drop_epochs:
        assert schedule(config.steps) == pytest.approx(0.1 ** len(config.optimizer.drop_epochs))
    height, width = config.data.frame_size
    multiple = 4 if config.model.name == 'soc' else 16
    assert height % multiple == width % multiple == 0
    augmentation = augment.Augmentation(**config.data.augmentation)
    assert max(augmentation.max_size, augmentation.cropped_max_size * augmentation.crop_probability) <= max(
        height, width
    )
    assert set(config.data.augmentation) == set(augment.Augmentation.__dataclass_fields__)
    assert (config.steps <= 2) == ('smoke' in mode)
    protocols.choose(config.evaluation.protocol)


@pytest.mark.parametrize('height, width', [(720, 1280), (1280, 720), (480, 640), (320, 480), (240, 320), (360, 360)])
def test_smoke_mode_takes_frames_of_every_shape(height, width):
    """In validation and training they are large enough for all levels."""
    for experiment in EXPERIMENTS:
        config = importlib.import_module(f'configs.{experiment}').get_config('smoke')
        size = clips.resized_size(height, width, config.evaluation.short_side, config.evaluation.max_side)
        for side in (*size, *config.data.frame_size):
            assert -(-side // 16) * 16 > {3: 64, 4: 128}[config.model.levels], experiment


def test_released_schedules():
    """Epochs, drops and learning rates (text, vision, rest) of the paper and the released scripts."""

    def schedule(name):
        config = importlib.import_module(f'configs.{name}').get_config()
        rates = dict(config.optimizer.groups)
        text = 0 if config.optimizer.freeze else rates['text_backbone/.*']
        return (
            config.epochs,
            config.optimizer.drop_epochs,
            text,
            rates['video_encoder/.*'],
            config.optimizer.learning_rate,
        )

    assert schedule('refcoco') == (12, (8, 10), 2.5e-6, 1.25e-5, 2.5e-5)
    assert schedule('ytvos') == (9, (6, 8), 0, 5e-5, 1e-4)
    assert schedule('ytvos_finetune') == (6, (3, 5), 0, 2.5e-5, 5e-5)
    assert schedule('ytvos_challenge') == schedule('ytvos_finetune')
    assert schedule('refcoco_soc') == (30, (15, 20), 5e-6, 1e-5, 1e-4)
    assert schedule('ytvos_soc') == (30, (20,), 0, 1e-5, 1e-4)
    assert schedule('ytvos_finetune_soc') == (20, (10,), 0, 1e-5, 1e-4)
    assert schedule('joint_soc') == (30, (20,), 5e-6, 1e-5, 1e-4)
    assert schedule('a2d_soc') == (20, (), 0, 5e-6, 5e-5)


def test_steps_and_epochs():
    from configs import ytvos

    config = ytvos.get_config()
    resolved = start.with_steps(config, clips=804)
    assert resolved.steps == round(9 * 804 / 8) and resolved.optimizer.drop_steps == (603, 804) and not config.steps
    config.steps = 5
    with pytest.raises(ValueError, match='config.steps = 5 and config.epochs = 9.0: set exactly one'):
        start.with_steps(config, clips=804)
    config.steps, config.optimizer.drop_steps = 0, (3,)
    with pytest.raises(ValueError, match='set drop_epochs instead'):
        start.with_steps(config, clips=804)
    with pytest.raises(ValueError, match="no mode 'large'; use one of full, base, smoke"):
        ytvos.get_config('base,large')


def test_make_demo_evaluates_what_it_builds():
    recipe = (ROOT / 'Makefile').read_text().split('\ndemo: ')[1].split('\n\n')[0].replace('$(DEMO)', 'runs/demo')
    (command,) = re.findall(r'evaluate\.py(?:.*\\\n)*.*', recipe)
    config = demo.get_config()
    for path, value in re.findall(r'--config\.([\w.]+)=(\S+)', command):
        section, _, field = path.rpartition('.')
        (config[section] if section else config)[field] = value
    assert configs.paths(config.evaluation.records or config.data.records) == ('runs/demo/records',)
    assert '--out=runs/demo/records' in recipe
