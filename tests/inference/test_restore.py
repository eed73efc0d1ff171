"""The tokenizer and the model that belong to the weights of config.init."""

import numpy as np
import pytest

from configs import synthetic
from sgmg_jax import systems
from sgmg_jax.convert import folder
from sgmg_jax.data import records, text
from sgmg_jax.inference import restore
from sgmg_jax.training import workdir


@pytest.fixture
def model(tmp_path):
    """A model folder; its weights are not read here."""
    config = synthetic.get_config()
    tokenizer = text.train_tokenizer(['the red star'] * 3, 280)
    parameters = {'query_embedding': np.zeros((1, 64), np.float32)}
    folder.write(folder.Model(config, parameters, tokenizer, ''), tmp_path / 'model')
    return tmp_path / 'model'


def save_other_tokenizer(path):
    text.save_tokenizer(text.train_tokenizer(['a blue moon'] * 3, 280), path)
    return str(path)


def test_the_tokenizer_beside_the_weights_is_used(model, tmp_path):
    config = synthetic.get_config()
    assert restore.tokenizer_path(config) is None
    config.init = str(model)
    assert restore.tokenizer_path(config) == str(model)
    config.data.tokenizer = str(model / 'tokenizer.json')
    assert restore.tokenizer_path(config) == config.data.tokenizer
    config.init = (str(model), str(tmp_path / 'backbone.pth'))
    assert restore.tokenizer_path(config) == config.data.tokenizer


@pytest.mark.parametrize('where', ['data', 'init'])
def test_two_tokenizers_are_refused(model, tmp_path, where):
    config = synthetic.get_config()
    other = save_other_tokenizer(tmp_path / 'other')
    config.init = (str(model), *[other] * (where == 'init'))
    config.data.tokenizer = other if where == 'data' else None
    with pytest.raises(ValueError, match='hold different tokenizers, but the text encoder knows only one'):
        restore.tokenizer_path(config)


def test_training_from_a_model_folder_keeps_its_tokenizer(model):
    config = synthetic.get_config()
    config.init = str(model)

    none = records.Records('memory', 'train', (), ())
    tokenizer = workdir.prepare_tokenizer(config, systems.build_model(config.model), none, model.parent, False)
    assert tokenizer.get_vocab() == text.load_tokenizer(model).get_vocab()


def test_weights_of_another_model_are_refused_by_field(model):
    config = synthetic.get_config()
    config.init = str(model)
    restore.check_init(config)
    config.model.dtype = 'bfloat16'
    restore.check_init(config)
    config.model.update(heads=8, points=2)
    with pytest.raises(ValueError, match=r'model: .* config.model.heads was 4, is now 8; config.model.points was 4'):
        restore.check_init(config)
