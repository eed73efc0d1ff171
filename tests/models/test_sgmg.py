"""SgMg beyond the golden cases of the whole model (tests/parity/test_parity.py)."""

import dataclasses

import golden_cases
import jax
import numpy as np

from sgmg_jax import systems, types
from sgmg_jax.convert import names as convert
from sgmg_jax.parity import cases


def tiny_parameters():
    shapes = golden_cases.official_shapes()
    ours = systems.parameter_shapes(golden_cases.TINY)
    return convert.from_official({n: cases.fill(n, s) for n, s in shapes.items()}, ours)


def test_only_the_annotated_frame_is_kept():
    """The other frames give the backbone context, as in A2D-Sentences."""
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((2, 3, 160, 160, 3), dtype=np.float32)
    clip = types.Clip(frames, np.ones(frames.shape[:4], bool), np.full((2, 2), 160, np.int32))
    parameters = tiny_parameters()
    encode = jax.jit(lambda c: golden_cases.TINY.apply({'params': parameters}, c, method='encode_video'))
    whole, kept = encode(clip), encode(dataclasses.replace(clip, annotated=np.array([2, 0])))
    for every, one in zip(
        jax.tree.leaves((whole.levels, whole.valid, whole.stride4, whole.stride8)),
        jax.tree.leaves((kept.levels, kept.valid, kept.stride4, kept.stride8)),
    ):
        np.testing.assert_allclose(every[np.arange(2), np.array([2, 0])], one[:, 0], atol=1e-4)
