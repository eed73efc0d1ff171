"""Compiles a forward pass and a training step for chips that are not here, and counts what the programs hold.

    python -m sgmg_jax.benchmarks.compiled --for=h100 --batch=8 --dtype=bfloat16
    python -m sgmg_jax.benchmarks.compiled --for=v5e:2x4 --dtype=bfloat16           # options as in benchmarks.step

Needs the compiler of the chip, not the chip: on Python 3.12 or newer, in an environment of its own beside sgmg_jax's
dependencies, `jax-cuda12-plugin`, `jax-cuda12-pjrt` (both of jax's version) and `nvidia-cuda-nvcc-cu12` for a GPU,
`libtpu` for a TPU.

memory       what one chip holds during a step: arguments and results, and temporary arrays beside them
collectives  exchanges between chips, by kind
atomics      of a GPU, in its assembly: native ones; in 16 bits, which are loops that retry; and compare-and-swap,
             which are such loops, too. The last two are what made sampling slow; there should be none.
operations   FLOPs of one chip, of matrix products, convolutions and FFTs; and bytes it reads and writes, as XLA
             estimates them, with the body of a loop counted once
"""

import argparse
import collections
from collections.abc import Mapping, Sequence
import os
import pathlib
import re
import sys
import tempfile
import time
from typing import Any

from sgmg_jax import commands
from sgmg_jax.benchmarks import machine, operations, step

# name -> compute capability, multiprocessors, bytes of memory, bytes of memory per second
GPUS = {
    'a100': ((8, 0), 108, 80 * 2**30, 2.0e12),
    'h100': ((9, 0), 132, 80 * 2**30, 3.35e12),
    'h200': ((9, 0), 132, 141 * 10**9, 4.8e12),
}
TPU = re.compile(r'(v[0-9]+[a-z]*):[0-9]+(x[0-9]+){1,2}')
COLLECTIVES = 'all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute', 'ragged-all-to-all'
# What XLA must know of a GPU to compile for it.
GPU_DESCRIPTION = """
platform_name: "CUDA"
device_description_str: "{name}"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 9 }}
gpu_device_info {{
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  core_count: {cores}
  device_memory_size: {memory}
  memory_bandwidth: {bandwidth}
  clock_rate_ghz: 1.7
  l2_cache_size: 41943040
  fpus_per_core: 64
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 166912
  shared_memory_per_core: 167936
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
"""


def devices_of(chip: str) -> list:
    """Devices to compile for: of 'v5e:2x4' eight, of 'h100' one.

    Raises:
        ValueError: the compiler of the chip is not installed, or knows no such topology.
    """
    from jax.experimental import topologies

    try:
        if chip in GPUS:
            (major, minor), cores, memory, bandwidth = GPUS[chip]
            config = GPU_DESCRIPTION.format(
                name=chip, major=major, minor=minor, cores=cores, memory=memory, bandwidth=int(bandwidth)
            )
            return topologies.get_topology_desc(platform='cuda', target_config=config, topology='1x1x1').devices
        return topologies.get_topology_desc(platform='tpu', topology_name=chip).devices
    except Exception as error:
        packages = 'jax-cuda12-plugin, jax-cuda12-pjrt and nvidia-cuda-nvcc-cu12' if chip in GPUS else 'libtpu'
        raise ValueError(
            f'--for={chip}: found no compiler for it, or it knows no such topology. Install {packages} '
            f'({" ".join(str(error).split())[:200]}).'
        ) from error


def collectives(text: str) -> dict[str, int]:
    """{kind: number} in the text of a compiled program; one that is started and awaited counts once."""
    kinds = '|'.join(COLLECTIVES)
    return dict(collections.Counter(re.findall(rf' ({kinds})(?:-start)?\(', text)))


def atomics(assembly: str) -> dict[str, int]:
    """{kind: number} of the atomic additions in PTX."""
    counts = {'native': 0, '16-bit': 0, 'compare-and-swap': 0}
    for instruction in re.findall(r'\b(?:atom|red)\.[\w.:]+', assembly):
        words = instruction.split('.')
        small = {'f16', 'bf16', 'b16', 'f16x2', 'bf16x2'} & set(words)
        counts['compare-and-swap' if 'cas' in words else '16-bit' if small else 'native'] += 1
    return counts


def compile_for(options: argparse.Namespace, batch: int) -> dict[str, Any]:
    """What the compiled step of options.mode holds, in bytes and seconds."""
    import jax

    from sgmg_jax import compilation, sharding

    gpu = options.chip in GPUS
    devices = devices_of(options.chip)
    mesh = sharding.make_mesh(options.storage_shards, devices)
    with compilation.tracing_for('gpu' if gpu else 'tpu'):
        function, jitted, arguments = step.make_program(options, mesh, batch)
        with jax.set_mesh(mesh):
            lowered = jitted.trace(*arguments).lower(lowering_platforms=('cuda' if gpu else 'tpu',))
            begun = time.perf_counter()
            compiled = lowered.compile()
        seconds = time.perf_counter() - begun
        flops = operations.count(function, *arguments) / len(devices)
    memory = compiled.memory_analysis()
    return {
        'seconds': seconds,
        'arguments': memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        'temporary': memory.temp_size_in_bytes,
        'code': memory.generated_code_size_in_bytes,
        'collectives': collectives(compiled.as_text() or ''),
        'flops': flops,
        # XLA tells it of TPUs only.
        'bytes': (compiled.cost_analysis() or {}).get('bytes accessed'),
    }


def _tell(counts: Mapping[str, int]) -> str:
    return ', '.join(f'{count} {kind}' for kind, count in counts.items()) or 'none'


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = step.make_parser('compiled', __doc__)
    parser.add_argument(
        '--for',
        dest='chip',
        required=True,
        metavar='CHIP',
        help=f'{", ".join(GPUS)}, or a TPU with its topology: v5e:2x4',
    )
    parser.add_argument('--mode', choices=['forward', 'train'], help='only this one (default: both)')
    return commands.exit_with(_work, parser, argv)


def _work(options: argparse.Namespace) -> None:
    batch = step.only_batch(options)
    step.check_sizes(options, options.model, batch)
    if options.chip not in GPUS and not TPU.fullmatch(options.chip):
        raise ValueError(f'--for={options.chip}: must be {", ".join(GPUS)}, or a TPU with its topology, like v5e:2x4.')
    with tempfile.TemporaryDirectory() as folder:
        # Before JAX starts. The compiler writes the GPU's assembly to the folder.
        os.environ |= {
            'JAX_PLATFORMS': 'cpu',
            'JAX_SKIP_CUDA_CONSTRAINTS_CHECK': '1',
            'CUDA_VISIBLE_DEVICES': '-1',
            'TPU_SKIP_MDS_QUERY': '1',
            'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} --xla_dump_to={folder} --xla_dump_emitter_re=.* '
            '--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false',  # both would time kernels on the chip
        }
        machine.disable_compilation_cache()
        print(f'{step.describe(options)}, {batch} clip(s) per chip, for {options.chip}', machine.describe(), sep='\n')
        for mode in [options.mode] if options.mode else ('forward', 'train'):
            options.mode = mode
            found = compile_for(options, batch)
            print(
                f'{mode}: compiled in {found["seconds"]:.0f} s to {found["code"] / 1e6:.1f} MB of code',
                f'  memory       {found["arguments"] / 2**30:.2f} GiB of arguments and results, '
                f'{found["temporary"] / 2**30:.2f} GiB temporary',
                f'  collectives  {_tell(found["collectives"])}',
                f'  operations   {found["flops"] / 1e12:.2f} TFLOP'
                + (f', {found["bytes"] / 2**30:.1f} GiB read and written' if found['bytes'] else ''),
                sep='\n',
                flush=True,
            )
            files = list(pathlib.Path(folder).glob('*.ptx'))
            if options.chip in GPUS:
                print(f'  atomics      {_tell(atomics("".join(file.read_text() for file in files)))}', flush=True)
            for file in files:
                file.unlink()


if __name__ == '__main__':
    sys.exit(main())
