"""Checkpoints of every known kind, to ours and back."""

from flax import traverse_util
import golden_cases
from golden_cases import TINY
import jax
import numpy as np
from official import kinetics, sgmg, shapes_of, soc, written
import pytest

from configs import common, ytvos_soc
from sgmg_jax import systems
from sgmg_jax.convert import names, sources, weights
from sgmg_jax.models import multi_instance, video_swin


@pytest.fixture
def official():
    return sgmg()


@pytest.fixture
def official_soc():
    return soc()


def test_sgmg_round_trip_is_exact(official, tmp_path):
    found, report = weights.load([written(official, tmp_path / 'official.safetensors')], shapes_of(TINY))
    assert '(SgMg)' in report[0]
    back = weights.released(found)
    assert set(back) == set(official)
    for name, x in official.items():
        if not name.endswith('_index'):
            np.testing.assert_array_equal(back[name], x, err_msg=name)
    assert {name: x.dtype for name, x in back.items()} == {name: x.dtype for name, x in official.items()}


def test_soc_round_trip_is_exact(official_soc, tmp_path):
    shapes = shapes_of(golden_cases.TINY_SOC)
    found, report = weights.load([written(official_soc, tmp_path / 'soc.safetensors')], shapes)
    assert '(SOC)' in report[0] and set(found) == set(traverse_util.flatten_dict(shapes, sep='/'))
    back = weights.released(found)
    assert set(back) == set(official_soc)
    for name, x in official_soc.items():
        if not name.endswith('_index'):
            np.testing.assert_array_equal(back[name], x, err_msg=name)


def test_soc_and_sgmg_are_distinguished(official, official_soc, tmp_path):
    for tensors, model, words in (
        (official, golden_cases.TINY_SOC, 'SgMg, the config says SOC'),
        (official_soc, TINY, 'SOC, the config says SgMg'),
    ):
        path = tmp_path / f'{words[:4].strip(",")}.safetensors'
        with pytest.raises(ValueError, match=f'Probably: this is a checkpoint with {words}'):
            weights.load([written(tensors, path)], shapes_of(model))


def test_sgmg_weights_initialise_fast_sgmg(official, tmp_path):
    """All but the decoupling, which the release does not have; and no way back."""
    model = multi_instance.FastSgMg(
        **{name: getattr(TINY, name) for name in TINY.__dataclass_fields__ if name not in ('parent', 'name')}
    )
    path = written(official, tmp_path / 'official.safetensors')
    shapes = shapes_of(model)
    found, _ = weights.load([path], shapes)
    own = set(traverse_util.flatten_dict(shapes, sep='/')) - set(found)
    assert own and all(name.startswith('decouple/') for name in own)
    weights.save(found, tmp_path / 'ours.safetensors')
    again, _ = weights.load([tmp_path / 'ours.safetensors'], shapes)
    assert set(again) == set(found)
    with pytest.raises(ValueError, match='The release has no such parameters: decouple/attention'):
        weights.released(found | {name: np.zeros(1) for name in own})


def test_index_tables_match_swin():
    """Against the definition: offsets in time, height and width, each shifted to start at zero."""
    grid = np.stack(np.meshgrid(*map(np.arange, (8, 7, 7)), indexing='ij')).reshape(3, -1)
    offset = grid[:, :, None] - grid[:, None] + np.array([7, 6, 6])[:, None, None]
    expected = offset[0] * 13 * 13 + offset[1] * 13 + offset[2]
    np.testing.assert_array_equal(video_swin.relative_position_index(), expected)


@pytest.mark.parametrize('system, config', [('sgmg', common), ('soc', ytvos_soc)])
@pytest.mark.parametrize('backbone, letter', [('tiny', 't'), ('small', 's'), ('base', 'b')])
def test_names_and_shapes_of_the_released_sizes(system, config, backbone, letter):
    config = config.get_config().model
    config.backbone = backbone
    zeros = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes_of(systems.build_model(config)))
    rename, folder = (names.soc_name, 'soc/') if system == 'soc' else (str, '')
    manifest = golden_cases.read_json(f'{folder}manifest_{system}_video_swin_{letter}')
    ours = {rename(name): list(x.shape) for name, x in names.to_official(zeros).items()}
    assert ours == {name: shape for name, (shape, dtype) in manifest.items() if dtype == 'float32'}


def test_checkpoints_of_another_size_are_refused(official):
    config = common.get_config().model
    tensors = names.to_official(
        jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes_of(systems.build_model(config)))
    )
    config.update(backbone='base', queries=1)
    with pytest.raises(ValueError) as caught:
        names.from_official(tensors, shapes_of(systems.build_model(config)))
    message = str(caught.value)
    assert 'Probably: this is a checkpoint with Video-Swin-T, the config says Video-Swin-B.' in message
    assert 'Probably: this is a checkpoint with 5 queries, the config says 1 queries.' in message
    assert len(message.splitlines()) < 25 and '24 x backbone.*.body.layers.*.blocks.*.mlp.fc*.weight' in message
    incomplete = {n: x for n, x in official.items() if not n.startswith('text_proj') and 'index' not in n}
    incomplete['extra.weight'] = np.zeros(3)
    with pytest.raises(ValueError) as caught:
        names.from_official(incomplete, shapes_of(TINY))
    assert 'is not in the checkpoint' in str(caught.value) and 'word_projection/linear/kernel' in str(caught.value)
    assert 'has no place here' in str(caught.value) and 'extra.weight' in str(caught.value)


@pytest.mark.parametrize(
    'layers, channels, words',
    [(12, 768, 'RoBERTa-base'), (24, 1024, 'RoBERTa-large'), (12, 1024, 'a RoBERTa of 12 layers, 1024 channels')],
)
def test_describe_recognises_released_text_encoders(layers, channels, words):
    tensors = {f'{names.ROBERTA}encoder.layer.{i}.output.dense.bias': np.zeros(channels) for i in range(layers)}
    tensors[f'{names.ROBERTA}embeddings.word_embeddings.weight'] = np.zeros((9, channels))
    assert names.describe(tensors) == {'text': words, 'vocabulary': '9 tokens'}


def test_no_name_has_two_meanings():
    """Each rule is the only one for its tensor, and for its parameters."""
    for rule in names.RULES:
        official = rule.official.format(i=3, j=1)
        paths = [path.format(i=3, j=1) for path in rule.ours]
        assert names.targets(official) == paths
        assert sum(pattern.fullmatch(official) is not None for pattern, _ in names._OFFICIAL) == 1
        for path in paths:
            assert sum(pattern.fullmatch(path) is not None for pattern, *_ in names._OURS) == 1
    for unknown in ('class_embed.x.weight', 'class_embed.3.weights', 'xclass_embed.3.weight', 'class_embed.3'):
        assert names.targets(unknown) == []


def test_class_heads_can_be_skipped(official, tmp_path):
    path = written(official, tmp_path / 'official.safetensors')
    found, _ = weights.load([path], shapes_of(TINY), skip='class_heads_.*')
    wanted = traverse_util.flatten_dict(shapes_of(TINY), sep='/')
    assert set(wanted) - set(found) == {p for p in wanted if p.startswith('class_heads_')} != set()
    # Of what was written here as well, also where they are of another size.
    weights.save(found | {'class_heads_0/kernel': np.zeros((64, 7), np.float32)}, tmp_path / 'ours.safetensors')
    again, _ = weights.load([tmp_path / 'ours.safetensors'], shapes_of(TINY), skip='class_heads_.*')
    assert set(again) == set(found)


def test_differing_box_heads_are_refused(official):
    tensors = dict(official)
    tensors['transformer.decoder.bbox_embed.0.layers.0.bias'] = np.ones(64, np.float32)
    with pytest.raises(ValueError, match='layers.0.bias differs from .*one tensor with two names'):
        sources.recognise(tensors)


def test_unknown_tensors_are_refused():
    with pytest.raises(ValueError, match=r'patch_embed.proj.weight has shape \(1099511627776, 3, 2, 4, 4\)'):
        sources.recognise({'patch_embed.proj.weight': np.broadcast_to(np.float32(0), (2**40, 3, 2, 4, 4))})
    with pytest.raises(ValueError, match='not the weights of a known model .* It has 1 tensors: some.weight'):
        sources.recognise({'some.weight': np.zeros(3)})


def test_video_swin_of_kinetics(official, tmp_path):
    tensors = kinetics()
    found, report = weights.load([written(tensors, tmp_path / 'swin.safetensors')], shapes_of(TINY))
    whole, _ = weights.load([written(official, tmp_path / 'official.safetensors')], shapes_of(TINY))
    assert set(found) == {path for path in whole if path.startswith('video_encoder/')}
    for path, x in found.items():
        if path != 'video_encoder/patch_embedding/kernel':
            np.testing.assert_array_equal(x, whole[path], err_msg=path)
    patch = tensors['backbone.patch_embed.proj.weight']
    np.testing.assert_array_equal(
        found['video_encoder/patch_embedding/kernel'], (patch[:, :, 0] + patch[:, :, 1]).transpose(2, 3, 1, 0)
    )
    assert 'Video Swin, patches summed over time' in report[0]


def test_swin_of_images_is_inflated(official, tmp_path):
    """On any two tokens of a window the bias is that of their places, however far apart in time."""
    tensors = {n.removeprefix('backbone.'): x for n, x in kinetics().items() if n.startswith('backbone.')}
    rng = np.random.default_rng(0)
    tensors['patch_embed.proj.weight'] = patch = rng.standard_normal((24, 3, 4, 4), dtype=np.float32)
    flat = {
        n: rng.standard_normal((169, x.shape[1]), dtype=np.float32)
        for n, x in tensors.items()
        if n.endswith('bias_table')
    }
    tensors |= flat | {
        'head.weight': np.ones((10, 192), np.float32),
        'layers.0.blocks.1.attn_mask': np.ones((4, 49, 49), np.float32),
    }
    found, _ = weights.load([written(tensors, tmp_path / 'swin.safetensors')], shapes_of(TINY))
    np.testing.assert_array_equal(found['video_encoder/patch_embedding/kernel'], patch.transpose(2, 3, 1, 0))
    bias = found['video_encoder/stage0_block0/attention/relative_position_bias'][video_swin.relative_position_index()]
    rows, columns = np.divmod(np.arange(392) % 49, 7)
    place = (rows[:, None] - rows + 6) * 13 + columns[:, None] - columns + 6
    np.testing.assert_array_equal(bias, flat['layers.0.blocks.0.attn.relative_position_bias_table'][place])


@pytest.mark.parametrize('prefix', ['', 'roberta.'])
def test_roberta_of_hugging_face(official, tmp_path, prefix):
    tensors = {
        prefix + n.removeprefix(sources.ROBERTA): x for n, x in official.items() if n.startswith(sources.ROBERTA)
    }
    if prefix:
        tensors['lm_head.bias'] = np.zeros(120, np.float32)
    found, report = weights.load([written(tensors, tmp_path / 'roberta.safetensors')], shapes_of(TINY))
    whole, _ = weights.load([written(official, tmp_path / 'official.safetensors')], shapes_of(TINY))
    assert set(found) == {path for path in whole if path.startswith('text_backbone/')} and 'RoBERTa' in report[0]
    for path, x in found.items():
        np.testing.assert_array_equal(x, whole[path])


@pytest.mark.parametrize('out', ['ours.safetensors', 'ours'])
def test_save_and_load(official, tmp_path, out):
    found, _ = weights.load([written(official, tmp_path / 'official.safetensors')], shapes_of(TINY))
    weights.save(found, tmp_path / out)
    again, report = weights.load([tmp_path / out], shapes_of(TINY))
    assert set(again) == set(found) and '(sgmg_jax)' in report[0]
    for path in found:
        np.testing.assert_array_equal(again[path], found[path])
    part = {path: x for path, x in found.items() if path.startswith('video_encoder/')}
    weights.save(part, tmp_path / f'part_{out}')
    assert set(weights.load([tmp_path / f'part_{out}'], shapes_of(TINY))[0]) == set(part)
    part.pop('video_encoder/patch_norm/bias')
    weights.save(part, tmp_path / f'hole_{out}')
    with pytest.raises(ValueError, match=rf'hole_{out}: these weights do not .*\n.*1 x video_encoder/patch_norm/bias'):
        weights.load([tmp_path / f'hole_{out}'], shapes_of(TINY))
    with pytest.raises(FileExistsError, match='exists already. Remove it or give another --out'):
        weights.save(found, tmp_path / out)
