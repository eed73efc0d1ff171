"""The whole model against the authors' release on the same weights."""
import functools

from flax import traverse_util
import golden_cases
import jax
import numpy as np
import pytest

from sgmg_jax import systems, types
from sgmg_jax.convert import sgmg as convert
from sgmg_jax.losses import matching
from sgmg_jax.losses import sgmg as losses
from sgmg_jax.models import roberta, sgmg, video_swin
from sgmg_jax.ops import queries

TINY = sgmg.SgMg(
    backbone=video_swin.Size(24, (2, 2, 2, 2), (3, 6, 12, 24)),
    text_encoder=roberta.Size(vocabulary=120, channels=48, layers=2, heads=4, mlp=96, positions=40),
    hidden=64, mlp=128, encoder_layers=2, decoder_layers=3,
    dropout=0, text_dropout=0, drop_path=0)


def inputs(arrays, multiple):
    """The case's clips, padded together, and its sentences."""
    videos = [arrays[f'in/video{i}'].transpose(0, 2, 3, 1) for i in range(len(arrays['in/sizes']))]
    height, width = (-(-max(v.shape[axis] for v in videos) // multiple) * multiple for axis in (1, 2))
    frames = np.zeros((len(videos), videos[0].shape[0], height, width, 3), np.float32)
    valid = np.zeros(frames.shape[:4], bool)
    for i, video in enumerate(videos):
        frames[i, :, :video.shape[1], :video.shape[2]] = video
        valid[i, :, :video.shape[1], :video.shape[2]] = True
    text = types.Text(arrays['in/input_ids'].astype(np.int32), arrays['in/attention_mask'] == 1)
    return types.Clip(frames, valid, arrays['in/sizes'].astype(np.int32)), text


@functools.cache
def tiny_parameters():
    shapes = golden_cases.official_shapes()
    ours = jax.eval_shape(lambda key: systems.init_parameters(TINY, key), jax.random.key(0))
    return convert.from_official({n: golden_cases.fill(n, s) for n, s in shapes.items()}, ours)


@pytest.mark.parametrize('case', ['full_tiny_eval_ytvos', 'full_tiny_eval_ytvos_b2'])
def test_evaluation_equals_the_release(case):
    arrays, meaning = golden_cases.load(case)
    clip, text = inputs(arrays, multiple=16)
    proposals, query, chosen = jax.jit(
        lambda p, c, t: TINY.apply({'params': p}, c, t, queries.best_query))(tiny_parameters(), clip, text)
    np.testing.assert_array_equal(query[0], meaning['best_query'])
    np.testing.assert_allclose(proposals.scores[-1], arrays['out/all_query_logits'][..., 0], atol=1e-4)
    np.testing.assert_allclose(chosen.scores[0], arrays['out/pred_logits'][:, :, 0, 0], atol=1e-4)
    np.testing.assert_allclose(chosen.boxes[0], arrays['out/pred_boxes'][:, :, 0], atol=1e-4)
    np.testing.assert_allclose(chosen.masks[0], arrays['out/pred_masks'][:, :, 0], atol=1e-4)


def targets_of(arrays, shape):
    """types.Targets of a training case, zero-padded to (height, width)."""
    count = len(arrays['in/sizes'])
    masks = np.zeros((count, arrays['in/tgt0_masks'].shape[0], *shape), bool)
    for i in range(count):
        mask = arrays[f'in/tgt{i}_masks']
        masks[i, :, :mask.shape[1], :mask.shape[2]] = mask
    boxes, present = (np.stack([arrays[f'in/tgt{i}_{name}'] for i in range(count)]) for name in ('boxes', 'valid'))
    return types.Targets(masks, boxes, present == 1)


def test_training_equals_the_release():
    arrays, _ = golden_cases.load('full_tiny_train')
    clip, text = inputs(arrays, multiple=32)
    targets = targets_of(arrays, clip.frames.shape[2:4])
    parameters = tiny_parameters()

    def objective(parameters):
        outputs = TINY.apply({'params': parameters}, clip, text,
                             lambda proposals: matching.match(proposals, targets))
        total, named = losses.loss(outputs, targets)
        return total, (named, outputs[1])

    shapes = golden_cases.official_shapes()
    (total, (named, query)), gradients = jax.jit(jax.value_and_grad(objective, has_aux=True))(parameters)
    np.testing.assert_array_equal(query, arrays['out/matched_query'])
    np.testing.assert_allclose(total, arrays['out/total'], rtol=1e-4)
    official = {'class': 'ce', 'box': 'bbox'}
    for name, value in named.items():
        _, term, *layer = name.replace('_low', '-low').split('_')
        key = '_'.join(['loss', official.get(term, term.replace('-', '_')), *layer])
        np.testing.assert_allclose(value, arrays[f'out/loss/{key}'], rtol=1e-3, err_msg=name)

    ours = traverse_util.flatten_dict(gradients, sep='/')
    norms = golden_cases.read_json('full_tiny_train_gradnorms')['norms_fp32']
    for name, norm in norms.items():
        parts = [ours[target] for target in convert.place(name, np.zeros(shapes[name]))]
        np.testing.assert_allclose(np.sqrt(sum(np.sum(np.square(p)) for p in parts)), norm, rtol=1e-3, err_msg=name)
    for key in (k for k in arrays if k.startswith('grad/')):
        scale = np.abs(arrays[key]).max()
        for target, part in convert.place(key.removeprefix('grad/'), arrays[key]).items():
            np.testing.assert_allclose(ours[target].reshape(part.shape) / scale, part / scale, atol=1e-3, err_msg=key)


def test_of_an_annotated_clip_only_that_frame_is_kept():
    """The frames around it are context for the backbone, as in A2D-Sentences."""
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((2, 3, 160, 160, 3), dtype=np.float32)
    clip = types.Clip(frames, np.ones(frames.shape[:4], bool), np.full((2, 2), 160, np.int32))
    encode = jax.jit(lambda c: TINY.apply({'params': tiny_parameters()}, c, method='encode_video'))
    whole, kept = encode(clip), encode(clip.replace(annotated=np.array([2, 0])))
    for every, one in zip(jax.tree.leaves((whole.levels, whole.valid, whole.stride4, whole.stride8)),
                          jax.tree.leaves((kept.levels, kept.valid, kept.stride4, kept.stride8))):
        np.testing.assert_allclose(every[np.arange(2), np.array([2, 0])], one[:, 0], atol=1e-4)
