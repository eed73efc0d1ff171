"""The papers' figures: their numbers against other formulas, their inputs, and one of each kind through the command."""

import json

import jax
from ml_collections import ConfigDict
import numpy as np
from PIL import Image
import pytest
import small

from sgmg_jax import systems
from sgmg_jax.benchmarks import multi_object
from sgmg_jax.data import records, text
from sgmg_jax.inference.predictor import Predictor
from sgmg_jax.models.patch_kernels import mask_features
from sgmg_jax.score import submission
from sgmg_jax.studies import feature_maps, figures, tables

SENTENCE = 'the red circle'


@pytest.fixture(scope='module')
def models(world_records):
    """Seeded models without a decoder, with one, and with plain attention."""
    rng = np.random.default_rng(0)
    found = {}
    tokenizer = text.train_tokenizer([SENTENCE, 'the blue square moving left'], 300)
    for name, switches in {
        'without': {},
        'with a decoder': dict(feature_decoder=True, optimizer=False, labels=1),
        'attention': dict(fusion='attention'),
    }.items():
        config = small.small_config(world_records)
        config.model.update(backbone='demo', **switches)
        config.data.text_length = 40
        config.evaluation.clip_frames = 8
        model = systems.build_model(config.model)
        parameters = jax.tree_util.tree_map_with_path(
            lambda path, x: rng.normal(path[-1].key == 'scale', 0.2, x.shape).astype(np.float32),
            systems.parameter_shapes(model),
        )
        found[name] = Predictor.from_config(config, model, parameters, tokenizer)
    return found


def film(size=(75, 90), length=3):
    return np.random.default_rng(1).integers(0, 256, (length, *size, 3), np.uint8)


def test_maps_are_those_of_the_model(models):
    """Without a decoder, the kernels are applied to the sum of the encoded levels; padding is cut off."""
    maps = feature_maps.read_maps(models['without'], film(), SENTENCE)
    # 75 x 90 pixels become 80 x 96: the shorter side has 80, and both are multiples of 16 after padding.
    assert maps.fused.shape == maps.encoded.shape == maps.segmented.shape == (3, 10, 12, 32)
    decoded = feature_maps.read_maps(models['with a decoder'], film(), SENTENCE)
    assert decoded.segmented.shape == (3, 10, 12, 8) and decoded.encoded.shape == maps.encoded.shape
    # The first frames of a longer film are the same; a window is all that is read.
    longer = feature_maps.read_maps(models['without'], np.concatenate([film()] * 4), SENTENCE)
    assert len(longer.encoded) == models['without'].clip_frames < 12
    assert not np.allclose(maps.fused, feature_maps.read_maps(models['without'], film(), 'the blue square').fused)


def test_segmented_features_are_the_sum_of_the_levels(models):
    predictor = models['without']
    seen = {}

    def spy(memory):
        jax.debug.callback(lambda *maps: seen.update(memory=[np.asarray(x) for x in maps]), *memory)
        return mask_features(memory)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('sgmg_jax.models.sgmg.mask_features', spy)
        feature_maps._program.cache_clear()
        maps = feature_maps.read_maps(predictor, film((80, 96)), SENTENCE)
    feature_maps._program.cache_clear()
    np.testing.assert_allclose(maps.encoded, seen['memory'][0][:3], atol=1e-6)
    np.testing.assert_allclose(maps.segmented, np.asarray(mask_features(seen['memory']))[:3], atol=1e-5)


def test_cka_is_that_of_gram_matrices():
    """HSIC of centred linear kernels, as Kornblith et al. define it (eq. 3)."""
    rng = np.random.default_rng(2)
    before, after = rng.normal(1, 2, (40, 7)), rng.normal(-3, 1, (40, 5))
    after[:, :3] += before[:, :3]
    centre = np.eye(40) - 1 / 40
    one, other = (centre @ x @ x.T @ centre for x in (before, after))
    expected = np.trace(one @ other) / np.sqrt(np.trace(one @ one) * np.trace(other @ other))
    assert feature_maps.linear_cka(before, after) == pytest.approx(expected) and 0.1 < expected < 0.9


def test_drift_ignores_rotation_and_scale():
    rng = np.random.default_rng(3)
    before = rng.normal(size=(100, 6)).astype(np.float32)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0].astype(np.float32)
    moved = 3 * before @ rotation + 5
    assert feature_maps.cosine_distance(before, moved) == pytest.approx(0, abs=1e-4)
    assert feature_maps.linear_cka(before, moved) == pytest.approx(1, abs=1e-4)
    unrelated = rng.normal(size=(100, 9)).astype(np.float32)
    assert feature_maps.cosine_distance(before, unrelated) > 0.8
    assert feature_maps.linear_cka(before, unrelated) < 0.3
    # By hand: three tokens, of which one changes sides.
    one = np.array([[1.0, 0], [-1, 0], [0, 0]])
    other = np.array([[1.0, 0], [0, 0], [-1, 0]])
    cosines = [1, -1, 0], [1, 0, -1]
    expected = np.mean(
        [
            1 - np.dot(a, b)
            for a, b in zip(
                np.outer([1, -1, 0], cosines[0]) / np.sqrt(2), np.outer([1, 0, -1], cosines[1]) / np.sqrt(2)
            )
        ]
    )
    assert feature_maps.cosine_distance(one, other) == pytest.approx(expected)
    maps = feature_maps.Maps(None, before.reshape(2, 5, 10, 6), moved.reshape(2, 5, 10, 6))
    drift = feature_maps.drift(maps)
    assert {name: len(of_frames) for name, of_frames in drift.items()} == {'cosine distance': 2, 'CKA': 2}


def test_contrast_of_a_map_by_hand():
    fused = np.zeros((1, 4, 4, 2), np.float32)
    fused[0, 1:3, 1:3] = 3, 4
    truth = np.zeros((1, 32, 32), bool)
    truth[0, 8:24, 8:24] = True
    # The mean is a quarter of (3, 4): inside, tokens are 3.75 away, outside 1.25.
    assert feature_maps.contrast(fused, truth) == pytest.approx(3)
    assert feature_maps.strength(fused).max() == 1 and feature_maps.strength(fused).min() == pytest.approx(1 / 3)
    assert feature_maps.contrast(fused, ~truth) == pytest.approx(1 / 3)
    assert feature_maps.contrast(fused, np.zeros_like(truth)) is feature_maps.contrast(fused, truth | True) is None


def check_picture(path, least=200):
    with Image.open(path) as picture:
        assert min(picture.size) > least and len(set(np.asarray(picture.convert('L')).ravel().tolist())) > 20


def test_drift_and_fusion_from_trained_runs(models, tmp_path, monkeypatch, capsys):
    """The command, with seeded models in the place of trained ones."""
    asked = []

    def train(workdir, base, rows, seeds):
        asked.append(([row.name for row in rows], list(seeds), base.data.records))
        return {(row.name, seed): workdir / row.name for row in rows for seed in seeds}

    by_row = {
        'decode-and-segment': 'with a decoder',
        'segment-and-optimize': 'without',
        'spectrum': 'without',
        'attention': 'attention',
    }
    monkeypatch.setattr(tables, 'write_world', lambda workdir, **sizes: workdir / 'records')
    monkeypatch.setattr(tables, 'train', train)
    monkeypatch.setattr(Predictor, 'from_workdir', classmethod(lambda cls, folder: models[by_row[folder.name]]))
    for figure in ('drift', 'fusion'):
        assert figures.main([figure, f'--workdir={tmp_path}', '--videos=2', '--seed=1']) == 0
        check_picture(tmp_path / f'{figure}.png')
    data = (str(tmp_path / 'records'),)
    assert asked == [
        (['decode-and-segment', 'segment-and-optimize'], [1], data),
        (['spectrum', 'attention'], [1], data),
    ]
    drift = json.loads((tmp_path / 'drift.json').read_text())['of each frame']
    assert list(drift) == ['with a decoder', 'without'] and len(drift['without']['CKA']) == 5
    assert np.mean(drift['with a decoder']['cosine distance']) > np.mean(drift['without']['cosine distance'])
    contrast = json.loads((tmp_path / 'fusion.json').read_text())['contrast']
    assert contrast['spectrum'] > 0 and contrast['spectrum'] != contrast['attention']
    assert 'times as strong in the object' in capsys.readouterr().out


def test_a_signal_ends_a_figure(tmp_path, monkeypatch):
    def stop(*arguments):
        raise tables.Stopped(15)

    monkeypatch.setattr(tables, 'write_world', lambda workdir, **sizes: workdir / 'records')
    monkeypatch.setattr(tables, 'train', stop)
    assert figures.main(['drift', f'--workdir={tmp_path}']) == 128 + 15
    assert list(tmp_path.iterdir()) == []


def test_speed_from_the_benchmark(tmp_path, capsys):
    rates = {method: {'1': 0.9, '10': 1.8} for method in multi_object.METHODS}
    source = tmp_path / 'multi_object.json'
    source.write_text(json.dumps({'machine': 'two cores', 'size': '5 frames', 'rates': rates}))
    assert figures.main(['speed', f'--json={source}', f'--workdir={tmp_path}']) == 0
    check_picture(tmp_path / 'speed.png')
    for content in ('[]', '{"rates": {"a": {}}}', '{"machine": "", "size": "", "rates": {"a": 1}}'):
        source.write_text(content)
        assert figures.main(['speed', f'--json={source}', f'--workdir={tmp_path}']) == 2
        assert 'is not what `python' in capsys.readouterr().err


@pytest.fixture(scope='module')
def systems_of(world_records, tmp_path_factory):
    """Two submissions: 'perfect', and 'late', whose masks are empty in the first two of five frames."""
    root = tmp_path_factory.mktemp('systems')
    for record in records.open_records(world_records, 'valid'):
        masks_of = record.decode_targets()
        for expression in record.video.expressions:
            masks = masks_of(expression)
            for name, empty in (('perfect', 0), ('late', 2)):
                shown = masks & (np.arange(len(masks)) >= empty)[:, None, None]
                submission.write_masks(root / name, record.video.name, expression.id, record.video.frame_names, shown)
    return root


def test_stability_and_gallery_of_two_systems(world_records, systems_of, tmp_path, capsys):
    command = [
        f'--gt={world_records}',
        f'--workdir={tmp_path}',
        '--pred',
        f'a={systems_of / "perfect"}',
        f'b={systems_of / "late"}',
    ]
    assert figures.main(['stability', *command]) == 0
    numbers = json.loads((tmp_path / 'stability.json').read_text())
    assert numbers['a']['J_variance'] == 0 and numbers['a']['sentences'] == numbers['b']['sentences'] > 4
    # J is 0, 0, 1, 1, 1 wherever the object is in all frames.
    assert 0.15 < numbers['b']['J_variance'] < 0.2401
    check_picture(tmp_path / 'stability.png')
    assert figures.main(['gallery', *command, '--videos=2', '--columns=3']) == 0
    check_picture(tmp_path / 'gallery.png')
    assert len(json.loads((tmp_path / 'gallery.json').read_text())['videos']) == 2
    capsys.readouterr()
    for wrong, message in (
        ([str(systems_of / 'late')], 'must be NAME=SUBMISSION'),
        ([f'a={systems_of / "late"}', f'a={systems_of / "perfect"}'], 'two submissions have the same name'),
        ([f'a={systems_of / "none"}'], 'no such submission'),
    ):
        for figure in ('stability', 'gallery'):
            assert figures.main([figure, *command[:2], '--pred', *wrong]) == 2
            assert message in capsys.readouterr().err


def test_one_sentence_of_each_object():
    make = lambda key, objects: ConfigDict(dict(id=key, objects=objects))
    listed = [make('0', (1,)), make('1', (2,)), make('2', (1,)), make('3', ()), make('4', (1, 2))]
    assert [one.id for one in figures.distinct(listed)] == ['0', '1', '3', '4']
    assert len(figures.distinct([make('0', None), make('1', None)])) == 2
