"""An interrupted evaluation resumes only if everything that its masks depend on is the same."""

import pathlib
import random
import types

import jax
import numpy as np
import pytest
import small

from configs import synthetic
from sgmg_jax.data import metadata, records
from sgmg_jax.inference import evaluate, protocols
from sgmg_jax.inference.predictor import Predictor
from sgmg_jax.score import submission


def parts(tmp_path):
    """Config, predictor and split."""
    tokenizer = types.SimpleNamespace(words='{}')
    tokenizer.to_str = lambda: tokenizer.words
    predictor = object.__new__(Predictor)
    predictor.origin, predictor.tokenizer = 'runs/a, step 3', tokenizer
    predictor.parameters = {'a': {'b': np.ones(3), 'c': np.zeros(2)}}
    folder = tmp_path / 'records'
    folder.mkdir(exist_ok=True)
    (folder / 'x.array_record').touch()
    videos = tuple(metadata.Video(name, ('0',), 8, 8, (), False) for name in 'ab')
    return synthetic.get_config(), predictor, records.Records(str(folder), 'valid', videos, ())


CHANGES = [
    (lambda config, predictor, split: setattr(predictor, 'origin', 'runs/a, step 4'), 'weights'),
    (lambda config, predictor, split: predictor.parameters['a'].update(c=np.float64([0, 1e-9])), 'weights'),
    (lambda config, predictor, split: setattr(predictor.tokenizer, 'words', '{"a": 1}'), 'tokenizer'),
    (lambda config, predictor, split: config.data.update(text_length=7), 'text_length'),
    (lambda config, predictor, split: config.model.update(queries=7), 'model'),
    (lambda config, predictor, split: config.evaluation.update(clip_frames=3), 'evaluation'),
    (lambda config, predictor, split: pathlib.Path(split.directory, 'x.array_record').write_text('more'), 'records'),
    (lambda config, predictor, split: setattr(split, 'split', 'test'), 'split'),
    (lambda config, predictor, split: setattr(split, 'videos', split.videos[:1]), 'videos'),
    (lambda config, predictor, split: jax.config.update('jax_default_matmul_precision', 'bfloat16'), 'precision'),
]


@pytest.fixture
def restored_precision():
    before = jax.config.jax_default_matmul_precision
    yield
    jax.config.update('jax_default_matmul_precision', before)


@pytest.mark.parametrize('change, name', CHANGES)
def test_an_evaluation_resumes_only_if_nothing_changed(tmp_path, caplog, restored_precision, change, name):
    partial, target = tmp_path / '.a', tmp_path / 'a'
    everything = parts(tmp_path)
    evaluate.begin(partial, target, evaluate.identity_of(*everything))
    (partial / 'done' / 'video').touch()
    evaluate.begin(partial, target, evaluate.identity_of(*everything))
    assert (partial / 'done' / 'video').exists() and 'from scratch' not in caplog.text
    change(*everything)
    evaluate.begin(partial, target, evaluate.identity_of(*everything))
    assert not (partial / 'done' / 'video').exists()
    assert f'had a different {name}; starting from scratch' in caplog.text


@pytest.mark.parametrize('object_id, has_truth', [(-1, False), (1, True), (2, True)])
def test_pictures_show_the_ground_truth_unless_it_is_hidden(tmp_path, object_id, has_truth):
    maps = np.zeros((3, 6, 9), np.uint8)
    maps[:, 2:4, 3:5] = max(object_id, 0)
    video = metadata.Video('a', ('0', '5', '10'), 6, 9, (metadata.Expression('0', 'a dog', object_id, ()),), True)
    split = records.Records(
        'memory',
        'valid',
        (video,),
        (
            [
                {
                    'video': b'a',
                    'masks': [small.encoded(x, 'PNG') for x in maps],
                    'frames': [small.encoded(np.zeros((6, 9, 3), np.uint8), 'PNG')] * 3,
                }
            ],
        ),
    )
    submission.write_masks(tmp_path, 'a', '0', video.frame_names, np.ones((3, 6, 9), bool))
    (row,) = evaluate.pictures(split, protocols.choose('ytvos'), tmp_path)
    assert row.masks.all() and (row.truth is not None) == has_truth
    iou = (maps[0] == object_id).mean()  # The prediction is everything.
    assert row.score == (f'J {100 * iou:.1f}' if has_truth else None)
    if has_truth:
        np.testing.assert_array_equal(row.truth, maps == object_id)


def test_other_objects_share_nothing_with_those_of_the_sentence():
    def of(number, *objects):
        return metadata.Expression(str(number), 'a', 0, (), objects)

    expressions = [of(0, 1), of(1, 1, 2), of(2, 2, 3), of(3), of(4, 4)]
    for seed in range(20):
        swapped = evaluate.swap_objects(expressions, random.Random(seed))
        assert [e.id for e in swapped] == ['0', '1', '2', '4']
        for e, before in zip(swapped, (expressions[0], expressions[1], expressions[2], expressions[4])):
            assert e.objects and not set(e.objects) & set(before.objects)
    assert evaluate.swap_objects(expressions[:2], random.Random(0)) == []


def test_a_threshold_needs_a_protocol_with_empty_masks(world_records):
    config = synthetic.get_config()
    config.data.records = (str(world_records),)
    config.evaluation.threshold = 0.5
    evaluate.open_split(config, 'valid')
    config.evaluation.protocol = 'mevis'
    evaluate.open_split(config, 'valid')
    config.evaluation.protocol = 'a2d'
    with pytest.raises(ValueError, match="config.evaluation.threshold = 0.5: the protocol 'a2d' has no empty masks"):
        evaluate.open_split(config, 'valid')


def test_a_config_out_of_range_is_refused_before_anything_is_read(tmp_path):
    config = synthetic.get_config()
    config.evaluation.sentences = 0
    with pytest.raises(ValueError, match='config.evaluation.sentences = 0'):
        evaluate.evaluate(config, tmp_path / 'no such run')
