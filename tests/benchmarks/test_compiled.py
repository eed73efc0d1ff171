"""What benchmarks.compiled counts in a program, and what it says without the compiler of a chip."""

import argparse

import jax
from jax.sharding import NamedSharding, PartitionSpec
import pytest

from sgmg_jax import compilation, sharding
from sgmg_jax.benchmarks import compiled, step

# As ptxas gets it.
ASSEMBLY = """
    @%p1 atom.global.v4.f32.add  {%f1, %f2, %f3, %f4}, [%rd1], {%f5, %f6, %f7, %f8};
    red.relaxed.gpu.global.add.f32 [%rd2], %f9;
    atom.relaxed.sys.global.add.noftz.bf16 %rs1, [%rd3], %rs2;
    red.global.add.noftz.f16x2 [%rd3], %r2;
    atom.relaxed.sys.global.cas.b32 %r1, [%rd4], %r2, %r3;
    mov.b32 %redundant, %atom;
"""


def test_atomics_by_kind():
    assert compiled.atomics(ASSEMBLY) == {'native': 2, '16-bit': 2, 'compare-and-swap': 1}
    assert compiled.atomics('') == {'native': 0, '16-bit': 0, 'compare-and-swap': 0}


def test_collectives_by_kind():
    """A start and its end are one."""
    text = """
      %a = f32[2] all-reduce(%x), replica_groups={}
      %b = (f32[2], f32[4]) all-gather-start(%a), dimensions={0}
      %c = f32[4] all-gather-done(%b)
      %d = f32[4] add(%c, %all-reduce.3)
      ROOT %e = f32[2] all-reduce-start(%d)
    """
    assert compiled.collectives(text) == {'all-reduce': 2, 'all-gather': 1}


def options_of(**sizes):
    """Of a forward pass of a small model."""
    return argparse.Namespace(
        backbone='demo',
        dtype='float32',
        remat='hidden',
        tokens=4,
        sentences=1,
        mode='forward',
        storage_shards=1,
        devices=None,
        **sizes,
    )


@pytest.mark.parametrize('platform', compilation.PLATFORMS)
def test_the_program_of_a_step_is_that_of_its_platform(platform):
    """Made from shapes alone. Only a CPU's has loops over windows, only a TPU's over chunks of queries and layers."""
    options = options_of(model='sgmg', frames=2, height=150, width=200)
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    with compilation.tracing_for(platform):
        function, _, (parameters, example) = step.make_program(options, mesh, 3)
        text = str(jax.make_jaxpr(function)(parameters, example))
    assert example.clip.frames.shape == (3, 2, 160, 208, 3) and example.text.tokens.shape == (3, 4)
    assert example.clip.frames.sharding == NamedSharding(mesh, PartitionSpec(sharding.BATCH))
    assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(parameters))
    # On a CPU, a loop in the window attention of each of 4 stages, for each of 4 levels of 4 encoder layers and, twice,
    # of 4 decoder layers (their memory, and what of it is not padding), and in the feed-forward layer of each encoder
    # layer. On a TPU, loops over the layers of the text encoder, of the encoder, and of the decoder after its first,
    # one in the program of an encoder layer, and two in each of the 2 programs of a decoder layer.
    assert text.count(' scan[') == {'cpu': 4 + 4 * (4 + 2 * 4) + 4, 'gpu': 0, 'tpu': 3 + 1 + 2 * 2}[platform]


def test_a_prepared_step_runs():
    options = options_of(model='soc', frames=1, height=90, width=70)
    _, run, (_, parameters, example) = step.prepare(options, 2)
    run()
    assert example.clip.frames.shape == (2, 1, 90, 70, 3)  # SOC pads nothing
    assert parameters and all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(parameters))


@pytest.mark.parametrize('chip', ['h100', 'v5e:2x4'])
def test_a_missing_compiler_is_named(chip, monkeypatch):
    from jax.experimental import topologies

    def missing(**arguments):
        assert arguments['platform'] == ('cuda' if chip == 'h100' else 'tpu')
        raise RuntimeError('no such plugin')

    monkeypatch.setattr(topologies, 'get_topology_desc', missing)
    package = 'nvidia-cuda-nvcc-cu12' if chip == 'h100' else 'libtpu'
    with pytest.raises(ValueError, match=f'^--for={chip}: found no compiler .* {package}.*no such plugin'):
        compiled.devices_of(chip)
