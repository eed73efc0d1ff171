"""Model folders: written and read, from the authors' weights without a config, from runs; and what is refused."""

import json
import re

from flax import traverse_util
import golden_cases
import numpy as np
from official import shapes_of, written
import pytest
from safetensors.numpy import load_file, save_file

from configs import synthetic, synthetic_soc, ytvos, ytvos_soc
from sgmg_jax import Predictor, systems
from sgmg_jax import config as configs
from sgmg_jax.convert import folder, infer, names, sources, weights
from sgmg_jax.convert.__main__ import main
from sgmg_jax.data import text
from sgmg_jax.inference import models, pretrained

FRAMES = np.random.default_rng(3).integers(0, 256, (3, 120, 130, 3), dtype=np.uint8)
SENTENCES = ['the red star', 'the circle moving left']


@pytest.fixture(scope='module')
def tokenizer():
    return text.train_tokenizer(SENTENCES, 300)


def small_config(experiment=synthetic):
    """As released, where the tensors do not show it."""
    config = experiment.get_config()
    config.model.update(hidden=32, heads=8, encoder_layers=1, decoder_layers=2, mlp=48, queries=3, points=2)
    if 'inference_layer' in config.model:
        config.model.update(inference_layer='first', hidden=128)
    return config


def random_parameters(config, seed=0):
    shapes = traverse_util.flatten_dict(shapes_of(systems.build_model(config.model)), sep='/')
    rng = np.random.default_rng(seed)
    return {
        path: (0.1 * rng.standard_normal(x.shape, dtype=np.float32) + np.float32(path.endswith('scale')))
        for path, x in shapes.items()
    }


def predictor_of(config, parameters, tokenizer):
    nested = traverse_util.unflatten_dict(parameters, sep='/')
    return Predictor.from_config(config, systems.build_model(config.model), nested, tokenizer, 'random numbers')


@pytest.fixture(scope='module')
def model(tokenizer):
    config = small_config()
    return folder.Model(config, random_parameters(config), tokenizer, 'random numbers')


@pytest.fixture
def written_model(model, tmp_path):
    folder.write(model, tmp_path / 'small', 'cc-by-nc-4.0', {'scores': 'J&F 12.3 | x'})
    return tmp_path / 'small'


def test_a_model_folder_gives_the_same_masks(model, written_model, tmp_path):
    assert sorted(path.name for path in written_model.iterdir()) == [
        'README.md',
        'config.json',
        'model.safetensors',
        'tokenizer.json',
    ]
    before = predictor_of(model.config, model.parameters, model.tokenizer)
    after = Predictor.from_pretrained(written_model)
    assert after.origin == f'{written_model} (random numbers)'
    answers = [list(next(p.windows(lambda window: FRAMES, len(FRAMES)))[1](SENTENCES)) for p in (before, after)]
    for a, b in zip(*answers, strict=True):
        np.testing.assert_array_equal(a.logits, b.logits)
        np.testing.assert_array_equal(a.scores, b.scores)
    after.save_pretrained(tmp_path / 'again')
    assert (tmp_path / 'again/tokenizer.json').read_bytes() == (written_model / 'tokenizer.json').read_bytes()
    again = load_file(tmp_path / 'again/model.safetensors')
    assert again.keys() == model.parameters.keys()
    for path, x in model.parameters.items():
        np.testing.assert_array_equal(again[path], x)
    stored = json.loads((written_model / 'config.json').read_text())
    assert set(stored) == {'format', 'model', 'data', 'evaluation', 'origin'}
    assert stored['format'] == configs.FORMAT and stored['evaluation']['short_side'] == 112


def test_the_card_tells_what_it_is_and_how_to_use_it(written_model, model):
    card = (written_model / 'README.md').read_text()
    count = sum(x.size for x in model.parameters.values())
    for words in (
        'license: cc-by-nc-4.0\n',
        '| system | SgMg |',
        f'| parameters | {count / 1e6:.1f} million |',
        '| scores | J&F 12.3 / x |',
        "Predictor.from_pretrained('small')",
    ):
        assert words in card


def without(name):
    return lambda path: (path / name).unlink()


def with_config(change):
    def spoil(path):
        content = json.loads((path / 'config.json').read_text())
        change(content)
        (path / 'config.json').write_text(json.dumps(content))

    return spoil


def fewer_parameters(path):
    tensors = load_file(path / 'model.safetensors')
    save_file({name: x for name, x in tensors.items() if 'class_heads' not in name}, path / 'model.safetensors')


def flipped_bit(path):
    data = bytearray((path / 'model.safetensors').read_bytes())
    data[-5] ^= 16
    (path / 'model.safetensors').write_bytes(bytes(data))


@pytest.mark.parametrize(
    'spoil, error, match',
    [
        (without('tokenizer.json'), FileNotFoundError, r'tokenizer\.json: no such file. A model folder has'),
        (without('config.json'), FileNotFoundError, r'small: is not a model folder. It needs config\.json'),
        (flipped_bit, ValueError, r'model\.safetensors: .* is damaged: its checksum'),
        (fewer_parameters, ValueError, r'model\.safetensors: .*'),
        (with_config(lambda c: c.update(format=99)), ValueError, r'config\.json: format = 99'),
        (with_config(lambda c: c.pop('model')), ValueError, r'config\.json: config\.model\.name: is missing'),
        (with_config(lambda c: c['model'].update(heads=0)), ValueError, r'config\.json: config\.model\.heads = 0'),
        (with_config(lambda c: c['model'].update(haeds=8)), ValueError, 'model.haeds: there is no such field.*heads'),
        (with_config(lambda c: c['model'].update(queries=4)), ValueError, 'do not fit the model'),
        (with_config(lambda c: c['evaluation'].pop('max_side')), ValueError, 'evaluation.max_side: is missing'),
        (with_config(lambda c: c['model'].update(backbone='huge')), ValueError, r'config\.json: config.model.backbone'),
        (lambda path: (path / 'config.json').write_text('[]'), ValueError, r'config\.json: holds a list'),
    ],
)
def test_damaged_folders_are_named(written_model, spoil, error, match):
    spoil(written_model)
    with pytest.raises(error, match=f'(?s){match}'):
        Predictor.from_pretrained(written_model)


def test_an_existing_folder_is_never_overwritten(written_model, model):
    before = {path: path.read_bytes() for path in written_model.iterdir()}
    with pytest.raises(FileExistsError, match='small: exists already'):
        folder.write(model, written_model)
    assert {path: path.read_bytes() for path in written_model.iterdir()} == before


def test_a_failed_write_leaves_nothing(model, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(text, 'save_tokenizer', full)
    with pytest.raises(OSError, match=r'No space left on device.*Free some space'):
        folder.write(model, tmp_path / 'new')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('size', 'tsb')
@pytest.mark.parametrize('system', ['sgmg', 'soc'])
def test_config_and_sizes_are_found_in_the_tensors(system, size):
    """All tensors of the release, and no others, belong to the model of the config that is found."""
    prefix = 'soc/manifest_soc' if system == 'soc' else 'manifest_sgmg'
    there = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in golden_cases.official_shapes(f'{prefix}_video_swin_{size}').items()
    }
    tensors = sources.recognise(there).tensors
    config = infer.config_of(tensors)
    usual = (ytvos_soc if system == 'soc' else ytvos).get_config()
    usual.model.backbone = {'t': 'tiny', 's': 'small', 'b': 'base'}[size]
    if system == 'soc':
        usual.model.classes = there['class_embed.0.weight'].shape[0]
    assert config.model.to_dict() == usual.model.to_dict()
    shapes = systems.parameter_shapes(systems.build_model(config.model))
    # Raises for what is missing, unknown or of another size.
    names.from_official(tensors, {part: shapes[part] for part in set(shapes) - names.OURS_ALONE})


@pytest.mark.parametrize(
    'experiment, found',
    [
        (synthetic, 'SgMg, a small Video Swin, 3 queries, 3 levels, 1 encoder and 2 decoder layers'),
        (synthetic_soc, 'SOC, a small Video Swin, 3 queries, 3 levels, 1 encoder and 2 decoder layers'),
    ],
)
def test_official_weights_become_a_folder_without_a_config(experiment, found, tokenizer, tmp_path, capsys):
    config = small_config(experiment)
    parameters = random_parameters(config)
    official = written(weights.released(parameters), tmp_path / 'official.safetensors')
    text.save_tokenizer(tokenizer, tmp_path / 'roberta')
    command = ['from-official', str(official), f'--tokenizer={tmp_path / "roberta"}', f'--out={tmp_path / "out"}']
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert f'found: {found}\n' in printed
    stored = folder.read(tmp_path / 'out')
    assert stored.config.model.heads == 8 and stored.config.model.points == 2
    for path, x in parameters.items():
        np.testing.assert_array_equal(stored.parameters[path], x)
    card = (tmp_path / 'out' / 'README.md').read_text()
    assert ('license: cc-by-nc-4.0' in card) == (experiment is synthetic)
    assert '| assumed | 8 heads of deformable attention' in card
    # The same weights with the config that is known, and opened where they lie.
    predictors = [
        predictor_of(config, parameters, tokenizer),
        models.open_model(official, tmp_path / 'roberta'),
        models.open_model(tmp_path / 'out'),
    ]
    for predictor in predictors:
        predictor.short_side = 112
    frames = FRAMES[:1, :100, :112]
    known, *others = [list(next(p.windows(lambda window: frames, 1))[1](SENTENCES)) for p in predictors]
    for answers in others:
        for a, b in zip(known, answers, strict=True):
            np.testing.assert_array_equal(a.logits, b.logits)
            np.testing.assert_array_equal(a.scores, b.scores)


@pytest.mark.parametrize(
    'change, match',
    [
        (lambda t: t.pop('transformer.level_embed'), r'level_embed is missing: these are not the weights of a whole'),
        (
            lambda t: t.update({'transformer.level_embed': np.zeros((5, 32), np.float32)}),
            'attention weights over 5 levels are not of 8 heads',
        ),
        (
            lambda t: t.update({'backbone.0.body.patch_embed.proj.weight': np.zeros((40, 3, 1, 4, 4), np.float32)}),
            'a Video Swin of 40 channels and .* blocks is not one of tiny, small, base',
        ),
    ],
)
def test_weights_whose_config_cannot_be_found(model, tmp_path, change, match, capsys):
    tensors = weights.released(model.parameters)
    change(tensors)
    official = written(tensors, tmp_path / 'official.safetensors')
    assert main(['from-official', str(official), f'--out={tmp_path / "out"}']) == 2
    error = capsys.readouterr().err
    assert re.search(match, error) and str(official) in error and len(error.splitlines()) == 1


def test_parts_of_a_model_need_a_config(model, tmp_path, capsys):
    tensors = weights.released(model.parameters)
    part = written(
        {name: x for name, x in tensors.items() if name.startswith('text_encoder.')}, tmp_path / 'words.safetensors'
    )
    ours = tmp_path / 'ours.safetensors'
    save_file(model.parameters, ours)
    for paths, match in (
        ([part], 'is a RoBERTa, only a part'),
        ([part, part], '2 files'),
        ([ours], 'names of sgmg_jax'),
    ):
        assert main(['from-official', *map(str, paths), f'--out={tmp_path / "out"}']) == 2
        assert match in capsys.readouterr().err


@pytest.mark.parametrize(
    'name, match',
    [
        ('nowhere', "nowhere: no such model folder. Give a folder, .*'owner/name'|owner/name on the Hugging Face Hub"),
        ('a/b/c', 'a/b/c: no such model folder'),
        ('', 'no such model folder|is not a model folder'),
    ],
)
def test_names_that_are_no_model(name, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=match):
        Predictor.from_pretrained(name)


def test_a_folder_that_is_no_model_does_not_hide_the_one_of_the_package(tmp_path, monkeypatch, written_model):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, 'BOX', tmp_path / 'box')
    written_model.rename((tmp_path / 'box').mkdir() or tmp_path / 'box' / 'demo')
    (tmp_path / 'demo').mkdir()
    assert pretrained.find('demo') == tmp_path / 'box' / 'demo'
    (tmp_path / 'other').mkdir()
    with pytest.raises(FileNotFoundError, match='other: is not a model folder'):
        pretrained.find('other')
    (tmp_path / 'other' / 'checkpoints').mkdir()
    with pytest.raises(FileNotFoundError, match='workdir of a run: python -m sgmg_jax.convert from-run other makes'):
        pretrained.find('other')


def test_models_of_the_hub(written_model, monkeypatch):
    class Hub:
        @staticmethod
        def snapshot_download(name, allow_patterns):
            assert name == 'owner/name' and set(allow_patterns) == {path.name for path in written_model.iterdir()}
            return str(written_model)

    monkeypatch.setattr(pretrained.importlib, 'import_module', lambda name: Hub)
    assert pretrained.find('owner/name') == written_model

    def offline(*_, **__):
        raise RuntimeError('Cannot reach the server\nmore')

    monkeypatch.setattr(Hub, 'snapshot_download', offline)
    with pytest.raises(ConnectionError, match=r'owner/name: .* did not give it \(Cannot reach the server\)'):
        pretrained.find('owner/name')

    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(pretrained.importlib, 'import_module', missing)
    with pytest.raises(ConnectionError, match='run pip install huggingface_hub'):
        pretrained.find('owner/name')


def test_a_tokenizer_or_checkpoint_that_is_not_used_is_refused(written_model, tmp_path):
    with pytest.raises(ValueError, match='has its own. Leave it out'):
        models.open_model(written_model, tokenizer=tmp_path)
    with pytest.raises(ValueError, match="checkpoint = 'latest'.*not the workdir"):
        models.open_model(written_model, checkpoint='latest')
