"""From records to scores through the functions that train.py, evaluate.py and `score` call."""

import contextlib
import copy
import dataclasses
import json
import pathlib
import random
import shutil
import zipfile

from flax import traverse_util
import jax
import numpy as np
from PIL import Image
import pytest
import safetensors.numpy
import small

from sgmg_jax import Predictor, checkpoints, files, sharding, systems
from sgmg_jax import config as configs
from sgmg_jax.convert import __main__ as convert
from sgmg_jax.convert import weights
from sgmg_jax.data import records, text
from sgmg_jax.inference import evaluate, models, protocols, restore
from sgmg_jax.score import __main__ as score_command
from sgmg_jax.training import loop, start


@pytest.fixture(scope='module')
def run(tmp_path_factory, world_records):
    """Workdir and config of a run of two steps with a moving average, every video scored."""
    workdir, config = tmp_path_factory.mktemp('run'), small.small_config(world_records)
    config.ema_decay, config.evaluation.videos = 0.5, None
    assert loop.train(config, workdir) is None
    return workdir, config


@pytest.fixture
def trained(run):
    """`run`, its config a copy."""
    workdir, config = run
    return workdir, copy.deepcopy(config)


@pytest.fixture(scope='module')
def evaluated(run):
    """What the evaluation of `run` returned; its files are in the workdir."""
    workdir, config = run
    return evaluate.evaluate(copy.deepcopy(config), workdir, progress=False)


def read_lines(workdir):
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def parameters(workdir, checkpoint='latest'):
    config = restore.check_model(None, workdir)
    model = systems.build_model(config.model)
    return traverse_util.flatten_dict(restore.restore_parameters(model, workdir, checkpoint)[1], sep='/')


def test_a_run_leaves_its_logs_and_checkpoints(trained):
    workdir, _ = trained
    lines = read_lines(workdir)
    steps = [line for line in lines if 'loss' in line]
    assert [line['step'] for line in steps] == [1, 2]
    named = {'loss_class', 'loss_box', 'loss_giou', 'loss_mask', 'loss_dice', 'loss_mask_low', 'loss_dice_low'}
    assert named | {f'{n}_0' for n in named} <= set(steps[0])
    scores = [line for line in lines if 'valid/J&F' in line]
    assert [line['step'] for line in scores] == [2]
    assert 'valid/attribute/J' in scores[0]
    assert list((workdir / 'tensorboard').iterdir())
    saved = checkpoints.Checkpoints(workdir)
    assert saved.all_steps() == [1, 2] and saved.best_step() == 2
    saved.close()


def test_evaluation_writes_leaderboard_files(trained, evaluated):
    workdir, config = trained
    summary = evaluated
    folder = workdir / 'evaluation' / 'ref_youtube_vos_valid'
    split = records.open_records(config.data.records, 'valid')
    expected = {
        f'Annotations/{video.name}/{e.id}/{frame}.png'
        for video in split.videos
        for e in video.expressions
        for frame in video.frame_names
    }
    with zipfile.ZipFile(folder / 'submission.zip') as archive:
        assert set(archive.namelist()) == expected
        with archive.open(next(iter(expected))) as file:
            mask = Image.open(file)
            assert mask.mode == 'L' and mask.size == (80, 80) and set(np.unique(mask)) <= {0, 255}
    assert json.loads((folder / 'scores.json').read_text()) == summary
    assert set(summary['tags']) >= {'attribute'}
    # It is what training has logged for that checkpoint, of the averaged parameters.
    logged = next(line for line in read_lines(workdir) if 'valid/J&F' in line)
    for name in ('J&F', 'J', 'F'):
        assert summary[name] == pytest.approx(logged[f'valid/{name}'], abs=1e-6)
    assert Image.open(folder / 'overlays.png').width > 300
    assert {path.name for path in (workdir / 'evaluation').iterdir() if path.name.startswith('.')} == {
        '.ref_youtube_vos_valid.lock'
    }
    # The command scores the same files the same way.
    out = workdir / 'again.json'
    arguments = ['ytvos', f'--gt={config.data.records[0]}', f'--pred={folder / "submission.zip"}', f'--json={out}']
    assert score_command.main(arguments) == 0
    assert json.loads(out.read_text()) == {k: v for k, v in summary.items() if k != 'weights'}
    # And the masks are those of the three-line API.
    record = split[0]
    masks = Predictor.from_workdir(workdir)(record.decode_frames(), [record.video.expressions[0].text])
    first = folder / 'Annotations' / record.video.name / record.video.expressions[0].id
    written = np.stack([np.asarray(Image.open(first / f'{name}.png')) for name in record.video.frame_names])
    np.testing.assert_array_equal(masks[0], written == 255)


def test_score_another_object(trained):
    workdir, config = trained
    summary = evaluate.evaluate(config, workdir, score_another_object=True, progress=False)
    scores = workdir / 'evaluation' / 'ref_youtube_vos_valid_shuffled' / 'scores.json'
    assert json.loads(scores.read_text()) == summary
    expressions = records.open_records(config.data.records, 'valid').videos[0].expressions
    swapped = evaluate.swap_objects(expressions, random.Random(0))
    assert [(e.id, e.text, e.tags) for e in swapped] == [(e.id, e.text, e.tags) for e in expressions]
    assert all(a.object_id != b.object_id for a, b in zip(swapped, expressions))
    alone = [e for e in expressions if e.object_id == 1]
    assert evaluate.swap_objects(alone, random.Random(0)) == []

    split = records.open_records(config.data.records, 'valid')
    split.videos = tuple(
        dataclasses.replace(v, expressions=tuple(e for e in v.expressions if e.object_id == 1)) for v in split.videos
    )
    with pytest.raises(ValueError, match="split 'valid': no video has sentences about two objects"):
        evaluate.score_videos(Predictor.from_workdir(workdir), split, 'ytvos', another_object=True, progress=False)


def test_clip_frames_cuts_videos_into_windows(trained):
    workdir, config = trained
    frames = records.open_records(config.data.records, 'valid')[0].decode_frames()
    config.evaluation.clip_frames = 2
    parts = Predictor.from_workdir(workdir, config=config)
    config.evaluation.clip_frames = 36
    whole = Predictor.from_workdir(workdir, config=config)
    ours = parts(frames, ['the red star', 'a circle'])
    assert ours.shape == (2, *frames.shape[:3])
    for first in range(0, len(frames), 2):
        np.testing.assert_array_equal(
            ours[:, first : first + 2], whole(frames[first : first + 2], ['the red star', 'a circle'])
        )


def test_a_workdir_with_another_config_is_refused(trained):
    workdir, other = trained
    other.data.batch_size = 1
    other.optimizer.learning_rate = 1.0
    with pytest.raises(ValueError, match=r'data.batch_size was 2, is now 1; optimizer.learning_rate was .*--workdir'):
        loop.train(other, workdir)


def test_a_checkpoint_of_another_backbone_is_refused(trained, tmp_path):
    workdir, other = trained
    other.model.backbone = 'tiny'
    with pytest.raises(ValueError, match=r"config.model.backbone was 'demo', is now 'tiny'"):
        evaluate.evaluate(other, workdir)
    # The checkpoint itself is checked as well, parameter by parameter.
    saved = checkpoints.Checkpoints(workdir)
    model = systems.build_model(other.model)
    with pytest.raises(ValueError, match=r'of another model than config.model describes \(\d+ parameters differ\)'):
        saved.restore_parameters(2, restore.parameter_shapes(model))
    saved.close()


def test_missing_checkpoints_are_named(trained, tmp_path):
    workdir, _ = trained
    with pytest.raises(FileNotFoundError, match=r"no checkpoint '7'; there are steps \[1, 2\], the best .* is 2"):
        Predictor.from_workdir(workdir, '7')
    with pytest.raises(FileNotFoundError, match='config.json: no such file'):
        Predictor.from_workdir(tmp_path)


def test_wrong_config_fields_are_named(tiny_config, tmp_path):
    for field, value, message in (
        ('model.backbone', 'huge', r"config.model.backbone = 'huge': must be one of 'tiny', 'small'"),
        ('model.levels', 5, 'levels = 5: must be 3'),
        ('model.levels', 4, 'frames of 80x80 pixels are too small for levels = 4: each side must be at least 129'),
        ('optimizer.freeze', ('text_encoder/.*',), "freeze: 'text_encoder/.*' matches no parameter"),
        ('optimizer.groups', (('backbone', 1.0),), "groups: 'backbone' is not the first match of any"),
        ('data.text_length', 4, 'text_length=4. Raise text_length'),
        ('data.records', ('/nowhere',), '/nowhere: no such folder'),
        ('data.valid_split', 'test', "no split 'test' there; it has train"),
        ('model.hidden', 48, 'config.model.hidden = 48: must be a multiple of 32'),
        ('model.layers', 48, 'config.model.layers: there is no such field'),
        ('model.classes', 2, 'config.model.classes: SgMg has no such field'),
        ('storage_shards', 3, 'config.storage_shards = 3 does not divide the number of devices, 1'),
    ):
        config = copy.deepcopy(tiny_config)
        section, _, name = field.rpartition('.')
        setattr(config[section] if section else config, name, value)
        # All in one workdir: a start that failed leaves nothing that a mended one would trip over.
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            loop.train(config, tmp_path)


def test_official_weights_start_a_run_and_an_evaluation(trained, evaluated, tmp_path):
    workdir, config = trained
    path = tmp_path / 'official.safetensors'
    weights.save(weights.released(weights.read_ours(workdir)), path)
    config.init = (str(path),)
    config.data.tokenizer = str(workdir / 'tokenizer.json')
    model, mesh = systems.build_model(config.model), sharding.make_mesh(1)
    with contextlib.closing(checkpoints.Checkpoints(tmp_path / 'run')) as saved:
        state, _, _ = start.prepare_state(config, model, systems.SYSTEMS['sgmg'], mesh, saved)
    ours, theirs = parameters(workdir), state.parameters()
    assert set(ours) == set(theirs)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)

    released = evaluate.evaluate(config, tmp_path / 'new')
    assert released.pop('weights').startswith(f'{path} (SgMg)')
    assert released == {name: value for name, value in evaluated.items() if name != 'weights'}
    assert list((tmp_path / 'new').glob('evaluation/*/submission.zip'))
    half = tmp_path / 'swin.safetensors'
    weights.save({n: x for n, x in weights.read_ours(workdir).items() if n != 'query_embedding'}, half)
    config.init = (str(half),)
    with pytest.raises(ValueError, match='swin.safetensors'):
        evaluate.evaluate(config, tmp_path / 'other')


def test_wrong_frames_and_sentences_are_refused(trained):
    workdir, config = trained
    predictor = Predictor.from_workdir(workdir)
    frames = np.zeros((2, 80, 80, 3), np.uint8)
    for wrong, sentences, message in (
        (frames, 'a circle', 'must be a list of at least one sentence'),
        (frames, [], 'must be a list of at least one sentence'),
        (frames, ['a circle', ' '], r"sentence 1 of 2 is empty \(' '\)"),
        (frames, ['red ' * 40], 'text_length=24'),
        (frames / 255, ['a circle'], r'float64 \(2, 80, 80, 3\): must be uint8'),
        (frames[..., 0], ['a circle'], r'uint8 \(2, 80, 80\): must be uint8 \[T H W 3\]'),
        (frames[:0], ['a circle'], r'\(0, 80, 80, 3\)'),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            predictor(wrong, sentences)
    several = [frames[0], frames[1, :40]]
    for wrong, sentences, kind, message in (
        (frames, None, TypeError, 'sentences = None: must be a list'),
        (frames, 5, TypeError, 'sentences = 5: must be a list'),
        (frames, {'a circle'}, TypeError, 'must be a list'),
        (frames, [None], (TypeError, ValueError), 'sentence 0.*None'),
        (frames, ['a circle', 5], (TypeError, ValueError), 'sentence 1.*5'),
        (None, ['a circle'], TypeError, 'frames: a NoneType: must be uint8'),
        ('film.mp4', ['a circle'], TypeError, r"frames = 'film.mp4': .* sgmg_jax.video.read\(path\)"),
        (pathlib.Path('film.mp4'), ['a circle'], TypeError, 'video.read'),
        (['film.mp4'], ['a circle'], ValueError, 'must be uint8'),
        (several, ['a circle'], ValueError, r'have several sizes, \(40, 80, 3\), \(80, 80, 3\)'),
        ([frames[0], None], ['a circle'], ValueError, 'frames'),
        (frames[:, :0], ['a circle'], ValueError, r'\(2, 0, 80, 3\): must be'),
        (np.zeros((2, 1, 2000, 3), np.uint8), ['a circle'], ValueError, '2000'),
    ):
        with pytest.raises(kind, match=message):
            predictor(wrong, sentences)


def test_one_word_for_a_checkpoint_everywhere(trained, tmp_path):
    workdir, config = trained
    for checkpoint in (2, '2', 'latest', 'best'):
        assert Predictor.from_workdir(workdir, checkpoint).origin == f'{workdir}, step 2'
    for wrong in (7, '7', 'last', True, None, -1, 2.0):
        with pytest.raises(FileNotFoundError, match='no checkpoint .*there are steps'):
            Predictor.from_workdir(workdir, wrong)
    # Before the first validation the best is the latest, for every reader.
    shutil.copytree(workdir, tmp_path / 'young')
    for folder in (tmp_path / 'young' / 'checkpoints').iterdir():
        shutil.rmtree(folder / 'metrics', ignore_errors=True)
    assert Predictor.from_workdir(tmp_path / 'young').origin.endswith('step 2')
    ours, read = parameters(tmp_path / 'young', 'best'), weights.read_ours(tmp_path / 'young')
    for path in ours:
        np.testing.assert_array_equal(ours[path], read[path])


def test_config_init_beside_a_run_is_refused(trained, tmp_path):
    workdir, config = trained
    path = tmp_path / 'weights.safetensors'
    weights.save(weights.read_ours(workdir), path)
    config = copy.deepcopy(config)
    config.init = str(path)
    with pytest.raises(
        ValueError,
        match='weights.safetensors.*holds a run that started from new parameters.*Leave out '
        '--config.init, or evaluate these weights in a new --workdir',
    ):
        evaluate.evaluate(config, workdir)
    # The weights that the run started from are allowed.
    shutil.copytree(workdir, tmp_path / 'run')
    stored = configs.to_json(configs.read(tmp_path / 'run')) | {'init': [str(path)]}
    (tmp_path / 'run' / 'config.json').write_text(json.dumps(stored))
    assert evaluate.choose_predictor(config, tmp_path / 'run', 'best').origin == f'{tmp_path / "run"}, step 2'


def test_a_run_as_a_model_folder(trained, evaluated, tmp_path, capsys):
    """The folder segments as the run does, evaluates as its weights do, and says where it is from."""
    workdir, config = trained
    folder = tmp_path / 'model'
    assert convert.main(['from-run', str(workdir), f'--out={folder}', '--licence=cc0-1.0']) == 0
    assert f'{workdir}, step 2: SgMg, a small Video Swin, 3 queries' in capsys.readouterr().out
    card = (folder / 'README.md').read_text()
    for words in ('license: cc0-1.0', 'step 2 of 2, batches of 2 clips of 2 frames, seed 0', 'new parameters'):
        assert words in card
    frames = np.random.default_rng(0).integers(0, 256, (2, 80, 90, 3), dtype=np.uint8)
    masks = Predictor.from_workdir(workdir)(frames, ['the red star'])
    for name in (folder, workdir):
        np.testing.assert_array_equal(models.open_model(name)(frames, ['the red star']), masks)
    assert models.open_model(workdir, checkpoint=1).origin.endswith('step 1')
    assert convert.main(['from-run', str(workdir), f'--out={tmp_path / "half"}', '--float16']) == 0
    sizes = [(path / 'model.safetensors').stat().st_size for path in (folder, tmp_path / 'half')]
    assert sizes[1] < 0.6 * sizes[0]
    for ours, whole in zip(
        *(jax.tree.leaves(models.open_model(path).parameters) for path in (tmp_path / 'half', folder))
    ):
        np.testing.assert_array_equal(ours, np.asarray(whole).astype(np.float16).astype(np.float32))
    config.init = str(folder)
    evaluate.evaluate(config, tmp_path / 'new', progress=False)
    name = pathlib.Path('evaluation/ref_youtube_vos_valid/submission.zip')
    with zipfile.ZipFile(tmp_path / 'new' / name) as ours, zipfile.ZipFile(workdir / name) as theirs:
        assert {n: ours.read(n) for n in ours.namelist()} == {n: theirs.read(n) for n in theirs.namelist()}
    config.model.update(heads=4, points=1)
    with pytest.raises(ValueError, match=r'model: .* config.model.heads was 2, is now 4; config.model.points was 2'):
        evaluate.evaluate(config, tmp_path / 'newer', progress=False)
    assert convert.main(['from-run', str(tmp_path), f'--out={tmp_path / "x"}']) == 2
    assert 'is not the workdir of a training run' in capsys.readouterr().err


def test_weights_that_are_no_numbers(trained, tmp_path):
    workdir, config = trained
    path, broken = tmp_path / 'weights.safetensors', weights.read_ours(workdir)
    name = sorted(broken)[3]
    for value in (np.nan, np.inf):
        broken[name] = np.full_like(broken[name], value)
        safetensors.numpy.save_file(broken, path)
        config.init, config.data.tokenizer = str(path), str(workdir / 'tokenizer.json')
        with pytest.raises(ValueError, match=rf'weights.safetensors: {name} has a weight of'):
            evaluate.evaluate(config, tmp_path / 'new')
    predictor = Predictor.from_workdir(workdir)
    nested = traverse_util.unflatten_dict(broken, sep='/')
    with pytest.raises(ValueError, match=f'parameters: {name} has a weight of'):
        Predictor.from_config(config, systems.build_model(config.model), nested, predictor.tokenizer)
    # Finite ones of which the model makes others.
    predictor.parameters = jax.tree.map(lambda x: np.full_like(x, 3e38), predictor.parameters)
    with pytest.raises(FloatingPointError, match=f'the mask logits are not finite; the weights .{workdir}, step 2.'):
        predictor(np.zeros((2, 80, 80, 3), np.uint8), ['a circle'])


def test_an_evaluation_never_goes_on_with_other_masks(trained, tmp_path, monkeypatch, caplog):
    """Whatever changes a mask begins it anew; what does not, goes on."""
    workdir, config = trained
    shutil.copytree(workdir, tmp_path / 'run')
    folder = tmp_path / 'run' / 'evaluation'
    split = records.open_records(config.data.records, 'valid')

    def interrupted(config, checkpoint='best'):
        """The videos that are predicted before the second one fails."""
        done = []

        def fail_at_the_second(predictor, record, folder):
            done.append(record.video.name)
            if record.video.name == split.videos[1].name:
                raise KeyboardInterrupt

        protocol = protocols.PROTOCOLS['ytvos']._replace(write=fail_at_the_second)
        with monkeypatch.context() as patch:
            patch.setitem(protocols.PROTOCOLS, 'ytvos', protocol)
            with pytest.raises(KeyboardInterrupt):
                evaluate.evaluate(config, tmp_path / 'run', checkpoint, progress=False)
        return done

    first, second = (video.name for video in split.videos)
    assert interrupted(config) == [first, second]
    assert interrupted(config) == [second]  # it goes on
    config.model.dtype = 'bfloat16'
    assert interrupted(config) == [first, second] and 'had a different model' in caplog.text
    assert interrupted(config) == [second]
    config.model.dtype = 'float32'
    assert interrupted(config, 1) == [first, second]
    config.evaluation.sentences = 2
    assert interrupted(config, 1) == [first, second]
    with jax.default_matmul_precision('bfloat16'):
        assert interrupted(config, 1) == [first, second]
    assert interrupted(config, 1) == [first, second] and interrupted(config, 1) == [second]
    # A second one is refused while the first is at work, and destroys nothing.
    before = sorted(folder.rglob('*'))
    with files.locked(folder / '.ref_youtube_vos_valid.lock', 'evaluating'):
        with pytest.raises(BlockingIOError, match='evaluating, is at work here'):
            evaluate.evaluate(config, tmp_path / 'run', 2)
    assert sorted(folder.rglob('*')) == before
    # Another tokenizer, where no checksum says so.
    shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '1' / 'checksums')
    swap_tokens(tmp_path / 'run' / 'tokenizer.json')
    assert interrupted(config, 1) == [first, second] and 'tokenizer' in caplog.records[-1].getMessage()


def swap_tokens(path):
    """Two tokens of a tokenizer.json get each other's number."""
    content = json.loads(path.read_text())
    vocabulary = content['model']['vocab']
    one, other = list(vocabulary)[-2:]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(content))


def test_another_tokenizer_than_the_one_trained_with(trained, tmp_path):
    workdir, config = trained
    shutil.copytree(workdir, tmp_path / 'run')
    path = tmp_path / 'run' / 'tokenizer.json'
    swap_tokens(path)
    for use in (lambda: Predictor.from_workdir(tmp_path / 'run'), lambda: loop.train(config, tmp_path / 'run')):
        with pytest.raises(ValueError, match='tokenizer.json: is not the tokenizer that the checkpoint of step 2'):
            use()
    larger = text.train_tokenizer([f'word{n}' for n in range(999)], 600)
    with pytest.raises(ValueError, match='a token 599, but config.model.text_encoder has 512 tokens'):
        restore.check_vocabulary(larger, restore.systems.build_model(config.model).text_encoder)


@pytest.mark.parametrize('damage', [b'', b'{', b'\xff\xfe', b'null', b'[' * 10**5])
@pytest.mark.parametrize('name', ['config.json', 'tokenizer.json', 'metrics.jsonl'])
def test_damage_in_a_workdir_is_named(trained, tmp_path, name, damage):
    workdir, config = trained
    (tmp_path / 'run').mkdir()
    for other in ('config.json', 'tokenizer.json'):
        shutil.copy(workdir / other, tmp_path / 'run' / other)
    (tmp_path / 'run' / name).write_bytes(damage + b'\n')
    with pytest.raises(ValueError, match=name):
        if name == 'metrics.jsonl':
            loop.MetricWriter(tmp_path / 'run', 1)
        Predictor.from_workdir(tmp_path / 'run')
