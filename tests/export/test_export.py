"""Export: the programs run without the package and equal the model; small models with seeded weights."""

import contextlib
import dataclasses
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys

from flax import traverse_util
import jax
from jax import export
import numpy as np
import pytest

from sgmg_jax import systems, types
from sgmg_jax.data import text
from sgmg_jax.export import __main__ as command
from sgmg_jax.export import programs
from sgmg_jax.inference import models, predictor
from sgmg_jax.models import multi_instance, roberta, sgmg, soc, video_swin
from sgmg_jax.ops import queries

SENTENCES = ['the white goose', 'a person on the left']
TOKENIZER = text.train_tokenizer(SENTENCES, 290)
FIELDS = dict(
    backbone=video_swin.Size(8, (2, 1, 1, 1), (1, 1, 2, 2)),
    text_encoder=roberta.Size(vocabulary=290, channels=16, layers=1, heads=2, mlp=16, positions=40),
    hidden=64,
    queries=3,
    levels=3,
    heads=2,
    points=2,
    encoder_layers=1,
    decoder_layers=1,
    mlp=32,
)
MODELS = {
    'sgmg': sgmg.SgMg(**FIELDS, remat='blocks'),
    'fast_sgmg': multi_instance.FastSgMg(**FIELDS),
    'soc': soc.SOC(**FIELDS | dict(hidden=128, cluster_encoder_layers=1, cluster_decoder_layers=1, cluster_mlp=32)),
}
# What is exported, and frames to run it with: padded in time and space, one frame, odd sizes.
OPTIONS = {
    'sgmg': ['--frames=3', '--size', '80', '96', '--tokens=18'],
    'fast_sgmg': ['--frames=1', '--size', '96', '80', '--sentences=2'],
    'soc': ['--frames=5', '--size', '66', '75'],
}
FRAMES = {'sgmg': (3, 70, 93), 'fast_sgmg': (1, 96, 67), 'soc': (4, 66, 75)}
IMAGENET = {'mean': [0.485, 0.456, 0.406], 'std': [0.229, 0.224, 0.225]}
# Runs a script and leaves behind which packages it imported.
WITHOUT_PACKAGE = """
import runpy, sys
script = sys.argv[1]
sys.argv = sys.argv[1:]
runpy.run_path(script, run_name='__main__')
assert 'jax' in sys.modules and not {'sgmg_jax', 'flax', 'orbax', 'jaxtyping'} & set(sys.modules), sorted(sys.modules)
"""


@functools.cache
def parameters(name):
    """Of one of MODELS, nested; seeded, none is zero."""
    rng = np.random.default_rng(0)

    def fill(path, x):
        spread = 0.1 if len(x.shape) == 1 else 1 / np.sqrt(np.prod(x.shape[:-1]))
        return (rng.normal(0, spread, x.shape) + (path[-1].key == 'scale')).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, systems.parameter_shapes(MODELS[name]))


def make_predictor(name, **options):
    sizes = dict(short_side=80, max_side=None, clip_frames=12, text_length=20) | options
    return predictor.Predictor(MODELS[name], parameters(name), TOKENIZER, origin=f'seeded {name}', **sizes)


def frames_of(name):
    return np.random.default_rng(1).integers(0, 256, (*FRAMES[name], 3), np.uint8)


@functools.cache
def by_the_model(name, sentences):
    """mask_logits [E T H W] and scores [E T] of the whole model, without padding in time."""
    model, (count, height, width) = MODELS[name], FRAMES[name]
    pads = [(0, -side % model.conventions.pixels) for side in (height, width)]
    normal = (frames_of(name) / np.float32(255) - IMAGENET['mean']) / np.array(IMAGENET['std'], np.float32)
    frames = np.pad(normal.astype(np.float32), [(0, 0), *pads, (0, 0)])
    valid = np.pad(np.ones((count, height, width), bool), [(0, 0), *pads])
    clip = types.Clip(frames[None], valid[None], np.array([[height, width]], np.int32))
    tokens = text.encode(TOKENIZER, sentences, 20)
    call = jax.jit(lambda p: model.apply({'params': p}, clip, tokens, queries.best_query)[2])
    found = call(parameters(name))
    return np.asarray(found.masks[0]), np.asarray(jax.nn.sigmoid(found.scores[0]))


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """function(model's name) -> folder, lines that the command printed; each is exported once."""
    done = {}

    def get(name):
        if name not in done:
            folder, printed = tmp_path_factory.mktemp(name) / 'exported', io.StringIO()
            folder.mkdir()  # an empty folder may exist
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
                patch.setattr(models, 'open_model', lambda name, tokenizer: make_predictor(name))
                if name == 'fast_sgmg':  # Its comparison would be SgMg's again.
                    patch.setattr(programs, 'compare', lambda *_: {})
                assert command.main([name, f'--out={folder}', *OPTIONS[name]]) == 0
            done[name] = folder, printed.getvalue().splitlines()
        return done[name]

    return get


@pytest.mark.parametrize('name', MODELS)
def test_programs_run_without_the_package_and_equal_the_model(exported, name, tmp_path):
    folder, printed = exported(name)
    compared = () if name == 'fast_sgmg' else ('mask_logits', 'scores')
    for line, result in zip(printed[2:-1], compared, strict=True):
        error, largest = re.fullmatch(rf'largest error of {result}: (.+), of values up to (.+)', line).groups()
        assert 0 <= float(error) <= 1e-5 * float(largest)
    assert sorted(path.name for path in folder.iterdir()) == [
        'export.json',
        'run.py',
        'segment.stablehlo',
        'tokenizer.json',
        'video.stablehlo',
        'weights.safetensors',
    ]
    assert [path.name for path in folder.parent.iterdir()] == ['exported']
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask()

    sentences = SENTENCES[: 2 if name == 'fast_sgmg' else 1]
    np.save(tmp_path / 'frames.npy', frames_of(name))
    moved = shutil.copytree(folder, tmp_path / 'elsewhere')
    words = [moved / 'run.py', 'frames.npy', 'masks.npz', *sentences]
    ended = subprocess.run(
        [sys.executable, '-c', WITHOUT_PACKAGE, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    with np.load(tmp_path / 'masks.npz') as found:
        logits, scores = found['mask_logits'], found['scores']
    wanted_logits, wanted_scores = by_the_model(name, tuple(sentences))
    count, height, width = FRAMES[name]
    stride = 4 if name == 'soc' else 1
    assert logits.shape == (len(sentences), count, -(-height // stride), -(-width // stride))
    assert_equal(logits, wanted_logits[..., : logits.shape[2], : logits.shape[3]])
    assert_equal(scores, wanted_scores)


def assert_equal(found, wanted):
    """To rounding of float32, which in random weights grows with the values."""
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_description(exported):
    """It has what is needed to run the programs without run.py."""
    folder, _ = exported('sgmg')
    about = json.loads((folder / 'export.json').read_text())
    assert about['model'] == 'SgMg' and about['origin'] == 'seeded sgmg'
    assert about['platforms'] == ['cpu', 'cuda', 'tpu'] and about['matmul_precision'] == 'float32'
    assert about['jax'] == jax.__version__ and about['calling_convention_version'] > 8
    assert (about['frames'], about['fewest_frames'], about['tokens']) == ([8, 80, 96, 3], 1, [1, 18])
    assert about['normalised_by_the_program'] == IMAGENET | {'of': 'RGB / 255'}
    assert (about['mask_stride'], about['resized']['short_side']) == (1, 80)
    video, segment = (about['signatures'][name] for name in about['programs'])
    assert video['inputs'][0] == segment['inputs'][0] == 'platform_index int32[]'
    assert video['inputs'][-3:] == ['frames uint8[8,80,96,3]', 'count int32[]', 'size int32[2]']
    assert segment['inputs'][-2:] == ['tokens int32[1,18]', 'valid bool[1,18]']
    assert [f'features.{line}' for line in video['outputs']] == segment['inputs'][-11:-2]
    assert segment['outputs'] == ['mask_logits float32[1,8,80,96]', 'scores float32[1,8]']
    weights = [line for line in video['inputs'] if line.startswith('weights.')]
    assert weights == sorted(weights) and 'weights.projections_0/kernel float32[1,1,16,64]' in weights
    assert not any('text_backbone' in line for line in weights)
    for name, signature in about['signatures'].items():
        program = export.deserialize((folder / name).read_bytes())
        main = program.mlir_module().split('func.func public @main(')[1].split(') ->')[0]
        assert main.count('%arg') == len(signature['inputs'])
        assert program.mlir_module().count('precision = [HIGHEST, HIGHEST]') > 10
    assert json.loads((exported('soc')[0] / 'export.json').read_text())['mask_stride'] == 4


def test_other_devices_get_the_form_of_the_model_that_is_fast_there(exported):
    """Attention in windows, all at once and not in a loop; the numbers are those of the CPU's form."""
    name, flat = 'sgmg', traverse_util.flatten_dict(parameters('sgmg'), sep='/')
    cuda = programs.export_model(MODELS[name], flat, programs.Sizes(8, 80, 96, 1, 20), ['cuda'])
    both = export.deserialize((exported(name)[0] / programs.VIDEO).read_bytes())
    loops = [program.mlir_module().count('stablehlo.while') for program in (both, cuda[programs.VIDEO])]
    assert loops == [sum(FIELDS['backbone'].depths), 0]
    (count, height, width), tokens = FRAMES[name], text.encode(TOKENIZER, SENTENCES[:1], 20)
    frames = np.full((8, 80, 96, 3), 255, np.uint8)  # What is padding does not matter.
    frames[:count, :height, :width] = frames_of(name)

    def call(program, *arguments):
        here = dataclasses.replace(program, disabled_safety_checks=(export.DisabledSafetyCheck.platform(),))
        return jax.jit(here.call)(flat, *arguments)

    video = call(cuda[programs.VIDEO], frames, np.int32(count), np.array([height, width], np.int32))
    found = call(cuda[programs.SEGMENT], video, tokens.tokens, tokens.valid)
    logits, scores = by_the_model(name, tuple(SENTENCES[:1]))
    assert_equal(found['mask_logits'][:, :count, :height, :width], logits[..., :height, :width])
    assert_equal(found['scores'][:, :count], scores)


@pytest.mark.parametrize(
    'name, options, sizes',
    [
        ('sgmg', {}, (16, 80, 144, 1, 20)),
        ('sgmg', {'frames': 12, 'tokens': 3}, (16, 80, 144, 1, 3)),
        ('sgmg', {'frames': 1, 'sentences': 3}, (1, 80, 144, 3, 20)),
        ('sgmg', {'frames': 8, 'size': (128, 64)}, (8, 128, 64, 1, 20)),
        ('soc', {'frames': 2}, (8, 80, 142, 1, 20)),
    ],
)
def test_sizes(name, options, sizes):
    assert programs.sizes_of(make_predictor(name), **options) == sizes


@pytest.mark.parametrize(
    'options, message',
    [
        (['--size', '81', '96'], '--size 81 96: must be multiples of 16, .* Give --size 96 96.'),
        (['--size', '80', '97'], 'Give --size 80 112.'),
        (['--size', '16', '272'], 'the long side must be at most 16 times'),
        (['--size', '64', '96'], 'frames of 64x96 pixels are too small for levels = 3'),
        (['--frames=13'], '--frames=13: the model processes at most 12 frames'),
        (['--tokens=21'], '--tokens=21: must be from 3, .* to 20'),
        (['--tokens=2'], '--tokens=2: must be from 3'),
        (['--platforms', 'cuda', 'tpu'], '--platforms cuda tpu: must include cpu'),
    ],
)
def test_wrong_options_are_refused(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.setattr(models, 'open_model', lambda name, tokenizer: make_predictor(name))
    assert command.main(['sgmg', f'--out={tmp_path / "new"}', *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line
    assert not list(tmp_path.iterdir())


def test_a_missing_run_and_a_folder_in_use_are_refused(tmp_path, capsys):
    assert command.main([str(tmp_path / 'run'), f'--out={tmp_path / "new"}']) == 2
    assert str(tmp_path / 'run') in capsys.readouterr().err and not list(tmp_path.iterdir())
    (tmp_path / 'used').mkdir()
    (tmp_path / 'used/notes').touch()
    assert command.main([str(tmp_path / 'run'), f'--out={tmp_path / "used"}']) == 2
    assert 'used: exists already. Remove it or give another --out.' in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob('*')] == ['used', 'notes']


def raise_(error):
    raise error


@pytest.mark.parametrize(
    'broken, error',
    [
        (lambda *_: {'mask_logits': np.full((1, 7, 72, 88), np.nan), 'scores': np.ones((1, 7))}, ValueError),
        (lambda *_: {'mask_logits': np.ones((1, 7, 72, 88)), 'scores': np.full((1, 7), 1.002)}, ValueError),
        (lambda *_: raise_(KeyboardInterrupt()), KeyboardInterrupt),
    ],
)
def test_nothing_is_left_behind_if_the_check_fails(exported, tmp_path, monkeypatch, broken, error):
    folder, _ = exported('sgmg')
    done = {name: export.deserialize((folder / name).read_bytes()) for name in (programs.VIDEO, programs.SEGMENT)}
    monkeypatch.setattr(programs, 'export_model', lambda *_: done)
    monkeypatch.setattr(programs, '_in_a_process_of_its_own', broken)
    ones = {'mask_logits': np.ones((1, 7, 72, 88)), 'scores': np.ones((1, 7))}
    monkeypatch.setattr(programs, '_by_the_model', lambda *_: ones)
    sizes = programs.Sizes(8, 80, 96, 1, 18)
    with pytest.raises(error, match='differ from the model' if error is ValueError else None):
        programs.write(make_predictor('sgmg'), tmp_path / 'new', sizes, log=lambda line: None)
    assert not list(tmp_path.iterdir())


def test_a_failing_process_is_an_error(tmp_path):
    (tmp_path / 'run.py').write_text('raise SystemError("no such luck")')
    with pytest.raises(ChildProcessError, match='run.py failed: SystemError: no such luck'):
        programs._in_a_process_of_its_own(tmp_path, frames_of('sgmg'), SENTENCES)
