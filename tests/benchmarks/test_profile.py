"""Operations are assigned to the parts of a model."""

import re

import jax
import jax.numpy as jnp
import pytest

from sgmg_jax.benchmarks import profile


@pytest.mark.parametrize(
    'name, expected',
    [
        (
            'jit(train_step)/jvp(SgMg)/SgMg.encode_video/video_encoder/stage2_block2/attention/qkv/dot_general',
            ('encode_video video_encoder', False),
        ),
        (
            'jit(train_step)/transpose(jvp(SgMg))/SgMg.segment/SgMg.fuse/augment_after_0/transpose',
            ('fuse augment_after', True),
        ),
        ('jit(<lambda>)/SOC/SOC.encode_video/projections_3/conv_general_dilated', ('encode_video projections', False)),
        ('jit(train_step)/transpose(jvp(SgMg))/SgMg.segment/SgMg.propose/decoder3/mlp/dot', ('propose decoder', True)),
        ('jit(train_step)/jvp(SgMg)/SgMg.optimize/transpose', ('optimize', False)),
        ('jit(train_step)/transpose(jvp())/mul', ('matching and losses', True)),
        ('jit(train_step)/cond/branch_1_fun/mul', ('optimizer and the rest', False)),
        ('', ('optimizer and the rest', False)),
    ],
)
def test_part_of(name, expected):
    assert profile.part_of(name) == expected


def test_operations_of_a_program_appear_in_its_profile():
    def program(x):
        with jax.named_scope('product'):
            y = x @ x
        with jax.named_scope('loop'):
            return jax.lax.fori_loop(0, 3, lambda _, y: jnp.fft.fft(y).real, y)

    x = jnp.ones((300, 300))
    compiled = jax.jit(program).lower(x).compile()
    names = profile.operations(compiled.as_text())
    loops = re.findall(r'%?([\w.\-]+) = .* while[(]', compiled.as_text())
    assert loops and not set(loops) & set(names)
    seconds = profile.device_seconds(lambda: jax.block_until_ready(compiled(x)), 2)
    spent = {
        scope: sum(time for operation, time in seconds.items() if f'/{scope}/' in names.get(operation, ''))
        for scope in ('product', 'loop')
    }
    assert all(time > 0 for time in spent.values()), (spent, seconds, names)


def test_operations_without_a_name_get_that_of_an_operand():
    """The cotangent's rather than the input's."""
    text = """
%fused (p: f32[2]) -> f32[2] {
  ROOT %inside = f32[2] add(%p, %p)
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %input = f32[2] sine(%x), metadata={op_name="jit(f)/jvp(M)/M.a/first/sin"}
  %cotangent = f32[2] cosine(%x), metadata={op_name="jit(f)/transpose(jvp(M))/M.a/second/cos"}
  %alone = f32[2] negate(%x)
  ROOT %gradient = f32[2] fusion(%input, %cotangent, %alone), kind=kCustom, calls=%fused
}
"""
    names = profile.operations(text)
    assert names['gradient'] == names['cotangent'] and 'second' in names['gradient']
    assert names['alone'] == '' and 'first' in names['input']
