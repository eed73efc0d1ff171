"""What an interrupted evaluation must have in common with the one that goes on with it."""
import pathlib
import types

import jax
import numpy as np
import pytest

from configs import synthetic
from sgmg_jax.inference import evaluate


class Split(list):
    split = 'valid'

    def __init__(self, folder):
        super().__init__('ab')
        folder.mkdir(exist_ok=True)
        (folder / 'x.array_record').touch()
        self.directory = str(folder)


def parts(tmp_path):
    """Config, predictor and split."""
    tokenizer = types.SimpleNamespace(words='{}')
    tokenizer.to_str = lambda: tokenizer.words
    predictor = types.SimpleNamespace(origin='runs/a, step 3', parameters={'a': {'b': np.ones(3), 'c': np.zeros(2)}},
                                      tokenizer=tokenizer)
    return synthetic.get_config(), predictor, Split(tmp_path / 'records')


CHANGES = [
    (lambda config, predictor, split: setattr(predictor, 'origin', 'runs/a, step 4'), 'weights'),
    (lambda config, predictor, split: predictor.parameters['a'].update(c=np.float64([0, 1e-9])), 'weights'),
    (lambda config, predictor, split: setattr(predictor.tokenizer, 'words', '{"a": 1}'), 'tokenizer'),
    (lambda config, predictor, split: config.data.update(text_length=7), 'text_length'),
    (lambda config, predictor, split: config.model.update(queries=7), 'model'),
    (lambda config, predictor, split: config.evaluation.update(clip_frames=3), 'evaluation'),
    (lambda config, predictor, split: pathlib.Path(split.directory, 'x.array_record').write_text('more'), 'records'),
    (lambda config, predictor, split: setattr(split, 'split', 'test'), 'split'),
    (lambda config, predictor, split: split.append('c'), 'videos'),
    (lambda config, predictor, split: jax.config.update('jax_default_matmul_precision', 'bfloat16'), 'precision')]


@pytest.fixture
def precision_as_it_was():
    before = jax.config.jax_default_matmul_precision
    yield
    jax.config.update('jax_default_matmul_precision', before)


@pytest.mark.parametrize('change, name', CHANGES)
def test_an_evaluation_of_other_things_begins_anew_and_names_them(tmp_path, caplog, precision_as_it_was, change, name):
    partial, target = tmp_path / '.a', tmp_path / 'a'
    everything = parts(tmp_path)
    evaluate.begin(partial, target, evaluate.identity_of(*everything))
    (partial / 'done' / 'video').touch()
    evaluate.begin(partial, target, evaluate.identity_of(*everything))
    assert (partial / 'done' / 'video').exists() and 'begins anew' not in caplog.text
    change(*everything)
    evaluate.begin(partial, target, evaluate.identity_of(*everything))
    assert not (partial / 'done' / 'video').exists()
    assert f'was of other {name}; it begins anew' in caplog.text
