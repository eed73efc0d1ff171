"""Each benchmark from raw files to scores, through the functions that the commands call."""
import copy
import dataclasses
import json
import zipfile

import numpy as np
from PIL import Image
import pytest
import raw_a2d
import raw_davis
import small

from configs import synthetic_soc
from datasets import build
from sgmg_jax import Predictor, checkpoints, score
from sgmg_jax.data import records
from sgmg_jax.inference import evaluate, protocols
from sgmg_jax.training import loop


@pytest.fixture(scope='module')
def a2d_records(tmp_path_factory):
    root = tmp_path_factory.mktemp('a2d')
    return str(build.build('a2d_sentences', raw_a2d.write(root / 'raw'), root / 'tfds'))


@pytest.fixture(scope='module')
def davis_records(tmp_path_factory):
    root = tmp_path_factory.mktemp('davis')
    return str(build.build('ref_davis', raw_davis.write(root / 'raw'), root / 'tfds'))


def a2d_config(config, folder):
    """The demo's model on A2D-Sentences."""
    config = copy.deepcopy(config)
    config.update(steps=1, log_every=1, eval_every=1)
    config.data.update(records=(folder,), train_split='train', valid_split='test', num_frames=3, frame_size=(80, 128))
    config.data.augmentation.update(order=('flip', 'photometric', 'select'), max_size=128)
    config.evaluation.update(protocol='a2d', split='test', clip_frames=3, max_side=128)
    return config


@pytest.fixture(scope='module')
def trained(tmp_path_factory, a2d_records, world_records):
    """A run of one step on A2D-Sentences: workdir and config."""
    config = a2d_config(small.small_config(world_records), a2d_records)
    workdir = tmp_path_factory.mktemp('run')
    loop.train(config, workdir)
    return workdir, config


def test_a2d_trains_and_validates_on_annotated_frames(trained):
    workdir, _ = trained
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    assert np.isfinite(lines[0]['loss']) and lines[0]['gradient_norm'] > 0
    assert {'valid/mAP', 'valid/overall_IoU', 'valid/mean_IoU', 'valid/P@0.5'} <= set(lines[-1])
    assert checkpoints.Checkpoints(workdir).best_step() == 1


def test_a2d_evaluation(trained, tmp_path):
    workdir, config = trained
    summary = evaluate.evaluate(config, workdir, progress=False)
    folder = workdir / 'evaluation' / 'a2d_sentences_test'
    results = json.loads((folder / 'predictions.json').read_text())
    video = raw_a2d.TEST
    assert {row['image_id'] for row in results} == {f'v_{video}_f_2_i_0', f'v_{video}_f_5_i_0'}
    assert len(results) == 2 * config.model.queries
    assert json.loads((folder / 'scores.json').read_text()) == summary and summary['images'] == 2
    assert Image.open(folder / 'overlays.png').width > 300
    arguments = ['a2d', f'--gt={config.data.records[0]}', f'--pred={folder / "predictions.json"}']
    assert score.main([*arguments, f'--json={tmp_path / "again.json"}']) == 0
    assert json.loads((tmp_path / 'again.json').read_text()) == {k: v for k, v in summary.items() if k != 'weights'}
    assert summary['weights'] == f'{workdir}, step 1'
    with pytest.raises(ValueError, match="protocol = 'a2d': sentences can only be shuffled"):
        evaluate.evaluate(config, workdir, shuffled=True)


def test_davis_evaluation_of_four_annotators(trained, davis_records, tmp_path):
    workdir, config = trained
    config = copy.deepcopy(config)
    config.evaluation.update(protocol='davis', records=(davis_records,), split='valid', clip_frames=4, max_side=None)
    summary = evaluate.evaluate(config, workdir, progress=False)
    folder = workdir / 'evaluation' / 'ref_davis_valid'
    with zipfile.ZipFile(folder / 'submission.zip') as archive:
        assert set(archive.namelist()) == {f'anno_{a}/{video}/{frame}.png' for a in range(4)
                                           for video in raw_davis.LISTS['val'] for frame in raw_davis.FRAMES}
    assert set(summary['annotators']) == {f'anno_{a}' for a in range(4)} and summary['objects'] == 3
    mean = np.mean([summary['annotators'][f'anno_{a}']['J&F'] for a in range(4)])
    assert summary['J&F'] == pytest.approx(mean)
    arguments = ['davis', f'--gt={davis_records}', f'--pred={folder}', f'--json={tmp_path / "again.json"}']
    assert score.main(arguments) == 0
    assert json.loads((tmp_path / 'again.json').read_text())['J&F'] == pytest.approx(summary['J&F'])


@pytest.mark.parametrize('benchmark, frames, places, images', [
    ('jhmdb', 4, ((0, 1), (3, 1)), 2), ('refcoco', 1, ((0, 1), (0, 2)), 2)])
def test_jhmdb_and_refcoco_are_scored_like_a2d(trained, benchmark, frames, places, images):
    """A sampled frame of a video, one sentence; pictures, several sentences."""
    workdir, config = trained
    video = small.video_of('a', frames, places)
    video = dataclasses.replace(video, expressions=video.expressions[:2 if benchmark == 'refcoco' else 1])
    predictor = Predictor.from_workdir(workdir)
    summary = evaluate.score_videos(predictor, small.made_up([video]), benchmark, progress=False)
    assert summary['images'] == images and summary['results'] == images * config.model.queries
    assert 0 <= summary['overall_IoU'] <= 100


def test_an_interrupted_evaluation_goes_on(trained, davis_records, tmp_path, monkeypatch):
    """Killed in the second video: the first is not predicted again, and the files are those of a whole evaluation."""
    workdir, config = trained
    config = copy.deepcopy(config)
    config.evaluation.update(protocol='davis', records=(davis_records,), split='valid', clip_frames=4, max_side=None)
    evaluate.evaluate(config, workdir, progress=False)
    whole = (workdir / 'evaluation' / 'ref_davis_valid' / 'submission.zip').read_bytes()

    protocol, written = protocols.PROTOCOLS['davis'], []

    def write(predictor, record, folder):
        if len(written) == 1:
            # Some of its files are there when the process dies, one half written.
            (folder / 'anno_0' / record.video.name).mkdir(parents=True)
            (folder / 'anno_0' / record.video.name / '.partial-1-00000.png').write_bytes(b'half')
            written.append('killed')
            raise KeyboardInterrupt
        written.append(record.video.name)
        protocol.write(predictor, record, folder)

    monkeypatch.setitem(protocols.PROTOCOLS, 'davis', protocol._replace(write=write))
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(config, workdir, progress=False)
    # The one before stays until the end.
    assert (workdir / 'evaluation' / 'ref_davis_valid' / 'submission.zip').read_bytes() == whole
    evaluate.evaluate(config, workdir, progress=False)
    assert written == ['dog', 'killed', 'judo']
    assert (workdir / 'evaluation' / 'ref_davis_valid' / 'submission.zip').read_bytes() == whole
    assert {path.suffix for path in (workdir / 'evaluation').glob('.*')} == {'.lock'}  # no half-written folder

    # What was interrupted with other settings is begun anew.
    written[:] = ['another']
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(config, workdir, progress=False)
    config.evaluation.clip_frames = 5
    evaluate.evaluate(config, workdir, progress=False)
    assert written == ['another', 'killed', 'dog', 'judo']


def test_fast_sgmg_on_davis(tmp_path, davis_records, world_records):
    """Trained on sentences of a clip together; asked by annotator, and then all at once for a leaderboard."""
    config = small.small_config(world_records)
    config.model.update(name='fast_sgmg', decoupling='residual')
    config.update(steps=1, log_every=1, eval_every=1)
    config.data.sentences = 3
    config.evaluation.sentences = 8
    loop.train(config, tmp_path)
    step, *_ = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert np.isfinite(step['loss']) and step['gradient_norm'] > 0
    assert evaluate.evaluate(config, tmp_path, progress=False)['expressions'] > 0

    predictor = Predictor.from_workdir(tmp_path, config=config)
    tokens = predictor._tokens
    predictor._tokens = lambda sentences: asked.append(list(sentences)) or tokens(sentences)
    [record, *_] = records.open_records(davis_records, 'valid')
    for benchmark, groups in (('davis', protocols.annotator_groups(record.video)),
                              ('ytvos', [record.video.expressions])):
        asked = []
        protocols.choose(benchmark).write(predictor, record, tmp_path / benchmark)
        assert asked == [[e.text for e in group] for group in groups]

    config.evaluation.update(protocol='davis', records=(davis_records,))
    assert evaluate.evaluate(config, tmp_path, progress=False)['annotators'].keys() == {
        'anno_0', 'anno_1', 'anno_2', 'anno_3'}


def test_soc_by_the_config_alone(tmp_path, world_records):
    """Trained, evaluated for a leaderboard and on annotated frames."""
    config = synthetic_soc.get_config('smoke')
    sgmg = small.small_config(world_records)
    config.model.update(heads=2, points=2, encoder_layers=1, mlp=32, queries=3, cluster_encoder_layers=1,
                        cluster_decoder_layers=1, cluster_mlp=32)
    config.data.update(records=sgmg.data.records, num_frames=2, frame_size=(80, 80))
    config.data.augmentation.update(scales=(80,), max_size=80)
    config.evaluation.short_side = 80
    config.update(steps=1, log_every=1, eval_every=1)
    loop.train(config, tmp_path)
    step, *_ = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert np.isfinite(step['loss']) and step['gradient_norm'] > 0 and 'loss_contrast_0' in step
    assert evaluate.evaluate(config, tmp_path, progress=False)['expressions'] > 0
    assert (tmp_path / 'evaluation' / 'ref_youtube_vos_valid' / 'submission.zip').exists()

    config.model.inference_layer = 'first'  # needs no training
    predictor = Predictor.from_workdir(tmp_path, config=config)
    video = small.video_of('a', 9, ((2, 1), (6, 2)))
    summary = evaluate.score_videos(predictor, small.made_up([video]), 'a2d', progress=False)
    assert summary['images'] == 2 and summary['results'] == 6


@pytest.mark.parametrize('moment', ['before', 'between', 'after'])
def test_killed_while_the_new_evaluation_takes_the_place_of_the_old(tmp_path, monkeypatch, moment):
    """The old one or the new one is there, whole; the same command runs again."""
    target, partial = tmp_path / 'evaluation' / 'a', tmp_path / 'evaluation' / '.a'
    target.mkdir(parents=True)
    (target / 'scores.json').write_text('old')
    evaluate.begin(partial, target, {'n': 1})
    (partial / 'files' / 'scores.json').write_text('new')
    calls = []

    def killed(source, destination):
        calls.append(source.name)
        if moment == 'before' or moment == 'between' and len(calls) == 2:
            raise KeyboardInterrupt
        return source.rename(destination)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(evaluate.os, 'replace', killed)
        if moment == 'after':
            patch.setattr(evaluate.shutil, 'rmtree', lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        evaluate.publish(partial, target)
    evaluate.begin(partial, target, {'n': 1})
    assert (target / 'scores.json').read_text() == ('new' if moment == 'after' else 'old')
    assert not list((partial / 'files').iterdir()) and not list((partial / 'done').iterdir())
    (partial / 'files' / 'scores.json').write_text('newer')
    evaluate.publish(partial, target)
    assert (target / 'scores.json').read_text() == 'newer' and not partial.exists()


def test_one_data_set_is_evaluated_at_a_time(trained, davis_records):
    workdir, config = trained
    config = copy.deepcopy(config)
    config.evaluation.records = (davis_records, davis_records)
    with pytest.raises(ValueError, match='config.evaluation.records: .* are 2 data sets'):
        evaluate.evaluate(config, workdir)
    config.evaluation.update(records=config.data.records, protocol='davis')
    for protocol in ('davis', 'ytvos'):
        config.evaluation.protocol = protocol
        with pytest.raises(ValueError, match=f"video {raw_a2d.TEST}: has masks of single frames.*protocol = 'a2d'"):
            evaluate.evaluate(config, workdir)


def test_a_protocol_that_is_not_the_data_sets_is_said(trained, davis_records, a2d_records, caplog):
    _, config = trained
    config = copy.deepcopy(config)
    for folder, protocol, said in ((davis_records, 'davis', False), (davis_records, 'ytvos', True),
                                   (a2d_records, 'a2d', False)):
        config.evaluation.update(records=folder, protocol=protocol)
        caplog.clear()
        evaluate.open_split(config, 'test' if protocol == 'a2d' else 'valid')
        assert ("ref_davis is a benchmark of the protocol 'davis'" in caplog.text) == said
    config.evaluation.update(records=davis_records, protocol='jhmdb')
    with pytest.raises(ValueError, match='config.evaluation.protocol'):
        evaluate.open_split(config, 'valid')


def test_pictures_among_videos_become_clips(a2d_records, world_records, tmp_path):
    """Joint training: two data sets one after the other; of a picture every frame of the clip is annotated."""
    split = records.open_records((world_records, world_records), 'train')
    assert len(split) == 6 and split[4].video == split[1].video
    np.testing.assert_array_equal(split[4].decode_frames([0]), split[1].decode_frames([0]))
    with pytest.raises(FileNotFoundError, match='nowhere'):
        records.open_records((world_records, tmp_path / 'nowhere'), 'train')
