"""Every benchmark and system by its documented commands, to their end, on tiny data sets: train, evaluate, score.

From what the documents and the configs' docstrings say only sizes differ, and how much is learned: the class heads
alone, which is less to compile. Then what else happens to an evaluation.
"""

import importlib
import json
import pathlib
import re
import zipfile

from absl import flags
import numpy as np
from PIL import Image
import pytest
import raw_a2d
import raw_copies
import raw_davis
import raw_mevis
import small

from datasets import build
from sgmg_jax import Predictor, commands
from sgmg_jax import config as configs
from sgmg_jax.data import records, text
from sgmg_jax.inference import __main__ as evaluate
from sgmg_jax.inference import evaluate as evaluation
from sgmg_jax.inference import protocols
from sgmg_jax.score import __main__ as score_command
from sgmg_jax.training import __main__ as train

ROOT = pathlib.Path(__file__).parent.parent
EXPERIMENTS = sorted(path.stem for path in (ROOT / 'configs').glob('*.py') if path.stem not in ('__init__', 'common'))
# What a run begins with, and what is only evaluated: as the docstrings have it.
BEGINS_WITH = {
    'ytvos_finetune': 'refcoco',
    'ytvos_challenge': 'refcoco',
    'a2d': 'refcoco',
    'ytvos_finetune_soc': 'refcoco_soc',
    'a2d_soc': 'refcoco_soc',
}
TRAINED_BY = {
    'davis': 'ytvos',
    'davis_fast': 'ytvos_fast',
    'davis_soc': 'ytvos_soc',
    'jhmdb': 'a2d',
    'jhmdb_soc': 'a2d_soc',
}
SIDE = 80


@pytest.fixture(scope='module')
def built(tmp_path_factory, world_records):
    """Name of a data set -> the folder of its records."""
    raw, out = tmp_path_factory.mktemp('raw'), tmp_path_factory.mktemp('tfds')
    written = {
        'ref_davis': raw_davis.write(raw / 'davis'),
        'mevis': raw_mevis.write(raw / 'mevis'),
        'a2d_sentences': raw_a2d.write(raw / 'a2d'),
        'jhmdb_sentences': raw_copies.write_jhmdb(raw / 'jhmdb'),
        'refcoco': raw_copies.write_refcoco(raw / 'coco'),
    }
    written |= {name: written['refcoco'] for name in ('refcoco_plus', 'refcocog')}
    return {'ref_youtube_vos': str(world_records)} | {
        name: str(build.build(name, folder, out)) for name, folder in written.items()
    }


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory, built):
    """vocab.json and merges.txt in a folder, as the README asks for them."""
    sentences = [
        e.text
        for folder in built.values()
        for split in ('train', 'valid', 'valid_u', 'test', 'val')
        for e in every_expression(folder, split)
    ]
    folder = tmp_path_factory.mktemp('roberta-base')
    text.train_tokenizer(sentences, 400).model.save(str(folder))
    return folder


def every_expression(folder, split):
    try:
        return [e for video in records.open_records(folder, split).videos for e in video.expressions]
    except ValueError:
        return []  # no such split


@pytest.fixture(scope='module')
def run(built, tokenizer, tmp_path_factory):
    """function(script, experiment, run) -> its exit status, with the sizes of a toy."""
    runs = tmp_path_factory.mktemp('runs')

    def run(script, experiment, workdir, *more):
        config = importlib.import_module(f'configs.{experiment}').get_config('smoke')
        soc = config.model.name == 'soc'
        sizes = {
            'model.backbone': 'demo',
            'model.text_encoder': 'demo',
            'model.levels': 3,
            'model.heads': 2,
            'model.hidden': 128 if soc else 32,
            'model.points': 1,
            'model.queries': 2,
            'model.mlp': 32,
            'model.encoder_layers': 1,
            'model.decoder_layers': 1,
            'data.frame_size': (SIDE, 96),
            'data.augmentation.scales': (SIDE,),
            'data.augmentation.max_size': 96,
            'data.augmentation.cropped_max_size': 96,
            'data.text_length': 40,
            'evaluation.short_side': SIDE,
            'steps': 1,
            'eval_every': 1,
            'optimizer.freeze': (r'(?!class_heads)',),
        }
        # Experiments that differ in these alone share their compiled programs. Half of the time would be theirs.
        sizes |= {
            'data.batch_size': 1,
            'data.num_frames': min(2, config.data.num_frames),
            'model.dropout': 0.0,
            'model.text_dropout': 0.0,
            'model.drop_path': 0.0,
            'optimizer.groups': (),
            'optimizer.learning_rate': 1e-4,
            'optimizer.weight_decay': 1e-4,
            'optimizer.batch_size': 8,
            'optimizer.clip_norm': 0.1,
            'optimizer.warmup_steps': 0,
            'optimizer.drop_steps': (),
        }
        if config.model.name == 'fast_sgmg':
            sizes |= {'data.sentences': 2, 'evaluation.sentences': 2}
        elif config.data.sentences > 1:  # Only memory and time depend on it.
            sizes |= {'data.sentences': 1}
        if 'mask_scale' in config.loss:  # nor is a weight worth a program of its own
            sizes['loss.mask_scale'] = 1.0
        if 'remat' in config.model:
            sizes['model.remat'] = 'hidden'  # 'blocks' compiles twice as much, for the same numbers
        if soc:
            sizes |= {'model.cluster_encoder_layers': 1, 'model.cluster_decoder_layers': 1, 'model.cluster_mlp': 32}
        if experiment == 'ytvos_challenge':
            sizes['evaluation.split'] = 'valid'  # There is no test split to score.
        if config.data.tokenizer:
            sizes['data.tokenizer'] = str(tokenizer)
        for section in ('data', 'evaluation'):
            names = [
                {'davis': 'ref_davis', 'records': 'ref_youtube_vos'}.get(name, name)
                for name in (pathlib.PurePath(path).name for path in config[section].records)
            ]
            sizes[f'{section}.records'] = tuple(built[name] for name in names)
        # As many videos as a fixture has are not to be divided by ten.
        for field in ('train_split', 'valid_split'):
            sizes[f'data.{field}'] = re.sub(r'\[.*\]', '', config.data[field])
        argv = [
            'script',
            f'--config=configs/{experiment}.py:smoke',
            f'--workdir={runs / workdir}',
            *(f'--config.{field}={value}' for field, value in sizes.items()),
            *more,
        ]
        work, define = (
            (train.train, lambda values: None) if script is train else (evaluate.evaluate, evaluate.define_flags)
        )
        return commands.run_experiment(work, '', '', define, argv, flags.FlagValues())

    run.workdirs = runs
    return run


@pytest.fixture(scope='module')
def trained(run):
    """function(experiment) trains it, and what it begins with, once."""
    done = {}

    def train_once(experiment):
        if experiment not in done:
            more = []
            if experiment in BEGINS_WITH:
                train_once(BEGINS_WITH[experiment])
                more = [f'--config.init={run.workdirs / BEGINS_WITH[experiment]}']
            done[experiment] = run(train, experiment, experiment, *more)
        return done[experiment]

    return train_once


@pytest.mark.parametrize('experiment', EXPERIMENTS)
def test_train_evaluate_score(experiment, run, trained, built, tmp_path, capsys):
    workdir = TRAINED_BY.get(experiment, experiment)
    assert trained(workdir) == 0
    capsys.readouterr()
    assert run(evaluate, experiment, workdir) == 0
    table = capsys.readouterr().out
    config = importlib.import_module(f'configs.{experiment}').get_config()
    annotated = config.evaluation.protocol in protocols.ANNOTATED
    assert ('mAP' if annotated else 'J&F') in table.splitlines()[0]
    assert ('anno_3' in table) == (config.evaluation.protocol == 'davis')

    lines = [json.loads(line) for line in (run.workdirs / workdir / 'metrics.jsonl').read_text().splitlines()]
    assert np.isfinite(lines[0]['loss']) and lines[0]['gradient_norm'] > 0
    assert ('loss_contrast' in lines[0]) == workdir.endswith('_soc')
    assert {'valid/mAP', 'valid/overall_IoU', 'valid/mean_IoU', 'valid/P@0.5'} <= set(
        lines[-1]
    ) or 'valid/J&F' in lines[-1]

    folder = max((run.workdirs / workdir / 'evaluation').glob('[a-z]*'), key=lambda path: path.stat().st_mtime_ns)
    assert Image.open(folder / 'overlays.png').width > 100
    scores = json.loads((folder / 'scores.json').read_text())
    assert scores['weights'] == f'{run.workdirs / workdir}, step 1'
    name = next(name for name in built if folder.name.startswith(f'{name}_'))
    predictions = folder / ('predictions.json' if annotated else 'submission.zip')
    split = folder.name.removeprefix(f'{name}_')
    assert (
        score_command.main(
            [
                config.evaluation.protocol,
                f'--gt={built[name]}',
                f'--pred={predictions}',
                f'--split={split}',
                '--processes=1',
                f'--json={tmp_path / "s.json"}',
            ]
        )
        == 0
    )
    assert table.strip() in capsys.readouterr().out
    if annotated:
        assert scores['images'] > 0 and scores['results'] == 2 * scores['images']  # of each query
        assert run(evaluate, experiment, workdir, '--score_another_object') == 2
        assert f"protocol = '{config.evaluation.protocol}': --score_another_object needs" in capsys.readouterr().err
    if config.evaluation.protocol == 'mevis':
        assert run(evaluate, experiment, workdir, '--try_thresholds') == 0
        assert 'highest Final: --config.evaluation.threshold=' in capsys.readouterr().out
        tried = json.loads((folder.with_name(f'{folder.name}_thresholds') / 'scores.json').read_text())
        used = f'{config.evaluation.threshold:.2f}'
        assert tried['thresholds'][used] | {'weights': tried['weights']} == scores
    if name == 'a2d_sentences':
        assert {row['image_id'] for row in json.loads(predictions.read_text())} == {
            f'v_{raw_a2d.TEST}_f_2_i_0',
            f'v_{raw_a2d.TEST}_f_5_i_0',
        }
    if config.evaluation.protocol == 'davis':
        assert scores['objects'] == 3
        with zipfile.ZipFile(predictions) as archive:
            assert set(archive.namelist()) == {
                f'anno_{a}/{video}/{frame}.png'
                for a in range(4)
                for video in raw_davis.LISTS['val']
                for frame in raw_davis.FRAMES
            }
        assert scores['J&F'] == pytest.approx(np.mean([scores['annotators'][f'anno_{a}']['J&F'] for a in range(4)]))
    again = json.loads((tmp_path / 's.json').read_text())
    assert again == {key: value for key, value in scores.items() if key != 'weights'}


def test_the_documented_commands_are_these():
    """What the documents and docstrings say that one can run with a config is what runs above."""
    texts = {experiment: importlib.import_module(f'configs.{experiment}').__doc__ for experiment in EXPERIMENTS}
    for experiment, words in texts.items():
        for script, other in re.findall(r'python (train|evaluate)\.py +--config=configs/(\w+)\.py', words):
            assert other in EXPERIMENTS and (script == 'evaluate' or other not in TRAINED_BY), experiment
        start = re.search(r'--config.init=runs/(\w+)', words)
        if experiment in BEGINS_WITH:
            assert start and start[1] == BEGINS_WITH[experiment]
        if experiment in TRAINED_BY:
            assert f'--workdir=runs/{TRAINED_BY[experiment]}' in words
    table = (ROOT / 'docs/training.md').read_text().split('| config | what |')[1].split('\n\n')[0]
    assert set(re.findall(r'`(\w+)`', table)) == set(EXPERIMENTS)


def test_fast_sgmg_asks_together_what_belongs_together(run, trained, built, tmp_path):
    """The sentences of an annotator; for a leaderboard those of a video."""
    assert trained('ytvos_fast') == 0
    config = configs.read(run.workdirs / 'ytvos_fast')
    config.evaluation.update(sentences=8, clip_frames=len(raw_davis.FRAMES))
    predictor = Predictor.from_workdir(run.workdirs / 'ytvos_fast', config=config)
    tokens = predictor._tokens
    predictor._tokens = lambda sentences: asked.append(list(sentences)) or tokens(sentences)
    [record, *_] = records.open_records(built['ref_davis'], 'valid')
    for benchmark, groups in (
        ('davis', protocols.annotator_groups(record.video)),
        ('ytvos', [record.video.expressions]),
    ):
        asked = []
        protocols.choose(benchmark).write(predictor, record, tmp_path / benchmark)
        assert asked == [[e.text for e in group] for group in groups]


def test_soc_answers_by_another_layer_without_training(run, trained):
    assert trained('ytvos_soc') == 0
    config = configs.read(run.workdirs / 'ytvos_soc')
    config.model.inference_layer = 'first'
    predictor = Predictor.from_workdir(run.workdirs / 'ytvos_soc', config=config)
    video = small.video_of('a', 9, ((2, 1), (6, 2)))
    summary = evaluation.score_videos(predictor, small.made_up([video]), 'a2d', progress=False)
    assert summary['images'] == 2 and summary['results'] == 2 * config.model.queries


@pytest.fixture
def on_davis(run, trained, built):
    """A workdir, and its config as for Ref-DAVIS17."""
    assert trained('ytvos') == 0
    config = configs.read(run.workdirs / 'ytvos')
    config.evaluation.update(protocol='davis', records=(built['ref_davis'],), split='valid', clip_frames=4)
    return run.workdirs / 'ytvos', config


def test_an_interrupted_evaluation_goes_on(on_davis, monkeypatch):
    """Killed in the second video: the first is not predicted again, and the files are those of a whole evaluation."""
    workdir, config = on_davis
    evaluation.evaluate(config, workdir, progress=False)
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
        evaluation.evaluate(config, workdir, progress=False)
    # The one before stays until the end.
    assert (workdir / 'evaluation' / 'ref_davis_valid' / 'submission.zip').read_bytes() == whole
    evaluation.evaluate(config, workdir, progress=False)
    assert written == ['dog', 'killed', 'judo']
    assert (workdir / 'evaluation' / 'ref_davis_valid' / 'submission.zip').read_bytes() == whole
    assert {path.suffix for path in (workdir / 'evaluation').glob('.*')} == {'.lock'}  # no half-written folder

    # What was interrupted with other settings is begun anew.
    written[:] = ['another']
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(config, workdir, progress=False)
    config.evaluation.clip_frames = 5
    evaluation.evaluate(config, workdir, progress=False)
    assert written == ['another', 'killed', 'dog', 'judo']


@pytest.mark.parametrize('moment', ['before', 'between', 'after'])
def test_killed_while_the_new_evaluation_takes_the_place_of_the_old(tmp_path, monkeypatch, moment):
    """The old one or the new one is there, whole; the same command runs again."""
    target, partial = tmp_path / 'evaluation' / 'a', tmp_path / 'evaluation' / '.a'
    target.mkdir(parents=True)
    (target / 'scores.json').write_text('old')
    evaluation.begin(partial, target, {'n': 1})
    (partial / 'files' / 'scores.json').write_text('new')
    calls = []

    def killed(source, destination):
        calls.append(source.name)
        if moment == 'before' or moment == 'between' and len(calls) == 2:
            raise KeyboardInterrupt
        return source.rename(destination)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(evaluation.os, 'replace', killed)
        if moment == 'after':
            patch.setattr(evaluation.shutil, 'rmtree', lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        evaluation.publish(partial, target)
    evaluation.begin(partial, target, {'n': 1})
    assert (target / 'scores.json').read_text() == ('new' if moment == 'after' else 'old')
    assert not list((partial / 'files').iterdir()) and not list((partial / 'done').iterdir())
    (partial / 'files' / 'scores.json').write_text('newer')
    evaluation.publish(partial, target)
    assert (target / 'scores.json').read_text() == 'newer' and not partial.exists()


def test_one_data_set_is_evaluated_at_a_time(on_davis, built):
    workdir, config = on_davis
    config.evaluation.records *= 2
    with pytest.raises(ValueError, match='config.evaluation.records: .* are 2 data sets'):
        evaluation.evaluate(config, workdir)
    config.evaluation.update(records=(built['a2d_sentences'],), split='test')
    for protocol in ('davis', 'ytvos'):
        config.evaluation.protocol = protocol
        with pytest.raises(ValueError, match=f'video {raw_a2d.TEST}: has masks of single frames.*evaluation.protocol'):
            evaluation.evaluate(config, workdir)


def test_a_protocol_that_is_not_the_data_sets_is_said(on_davis, built, caplog):
    _, config = on_davis
    for name, protocol, said in (
        ('ref_davis', 'davis', False),
        ('ref_davis', 'ytvos', True),
        ('a2d_sentences', 'a2d', False),
    ):
        config.evaluation.update(records=(built[name],), protocol=protocol)
        caplog.clear()
        evaluation.open_split(config, 'test' if protocol == 'a2d' else 'valid')
        assert ("ref_davis uses the protocol 'davis'" in caplog.text) == said
    config.evaluation.update(records=(built['ref_davis'],), protocol='jhmdb')
    with pytest.raises(ValueError, match='config.evaluation.protocol'):
        evaluation.open_split(config, 'valid')


def test_pictures_among_videos_become_clips(world_records, tmp_path):
    """Joint training: two data sets one after the other; of a picture every frame of the clip is annotated."""
    split = records.open_records((world_records, world_records), 'train')
    assert len(split) == 6 and split[4].video == split[1].video
    np.testing.assert_array_equal(split[4].decode_frames([0]), split[1].decode_frames([0]))
    with pytest.raises(FileNotFoundError, match='nowhere'):
        records.open_records((world_records, tmp_path / 'nowhere'), 'train')
