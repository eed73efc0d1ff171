"""Where a step spends its time: per part of the model, and in the most expensive operations.

    python -m sgmg_jax.benchmarks.profile --mode=train --batch 4 --dtype=bfloat16      # options as in benchmarks.step

An operation belongs to the part of the model whose code created it (Flax writes this into the compiled program); a
fusion belongs to the part of its last operation. Shares are of the busy time of the device. The median time of a step
minus the busy time is idle, for example between launches (a CPU runs several operations at once, so its busy time may
exceed the median). On a GPU the step is not captured as a CUDA graph here, because operations in a graph lose their
names: it is slightly slower than in benchmarks.step.
"""

import argparse
import collections
from collections.abc import Callable, Sequence
import os
import pathlib
import re
import statistics
import sys
import tempfile

from sgmg_jax import commands
from sgmg_jax.benchmarks import machine, step


def part_of(name: str) -> tuple[str, bool]:
    """(method and submodule, whether in the backward pass) of an operation, by its name in the compiled program.

    'jit(train_step)/transpose(jvp(SgMg))/SgMg.segment/SgMg.fuse/word_attention/dot' -> ('fuse word_attention', True)
    """
    _, _, inside_program = name.partition('/')
    context, _, path = inside_program.partition('/')
    backward = context.startswith('transpose(')
    model = re.sub(r'transpose|jvp|[()]', '', context)
    *scopes, _ = path.split('/')
    methods = [scope.rpartition('.')[2] for scope in scopes if model and scope.startswith(f'{model}.')]
    if not methods:
        differentiated = context.startswith(('jvp(', 'transpose('))
        return 'matching and losses' if differentiated else 'optimizer and the rest', backward
    module = next((scope for scope in scopes if '.' not in scope and '(' not in scope), '')
    return f'{methods[-1]} {re.sub("_?[0-9]+$", "", module)}'.rstrip(), backward


def operations(text: str) -> dict[str, str]:
    """{operation of a compiled program: its name in the traced one, or ''}, without operations that only contain others
    (loops, calls). A fusion without a name gets that of its last operation; what still has none, on a CPU the gradients
    of convolution kernels, that of an operand."""
    names: dict[str, str] = {}
    fused: dict[str, str] = {}
    everything: dict[str, str] = {}
    computation = ''
    for line in text.splitlines():
        if start := re.match(r'%?([\w.\-]+) \(.*\{$', line):
            computation = start[1]
        elif found := re.match(r'\s+(?:ROOT )?%?([\w.\-]+) = (?:\(.*?\)|\S+) ([\w\-]+)\((.*)', line):
            operation, kind, rest = found.groups()
            named = re.search(r'op_name="([^"]*)"', rest)
            fusion = re.search(r'calls=%?([\w.\-]+)', rest)
            name = named[1] if named else fused.get(fusion[1], '') if fusion else ''
            fused[computation] = name or fused.get(computation, '')
            if not name:
                operands = [everything.get(x, '') for x in re.findall(r'%([\w.\-]+)', rest.partition(')')[0])]
                # The cotangent tells more than the input.
                name = max(operands, key=lambda other: (bool(other), '/transpose(' in other), default='')
            everything[operation] = name
            if kind not in ('while', 'call', 'conditional'):
                names[operation] = name
    return names


def device_seconds(run: Callable[[], object], runs: int) -> dict[str, float]:
    """{operation of the compiled program: seconds on the device}, the mean of several runs."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(runs):
                run()
        (file,) = pathlib.Path(folder).rglob('*.xplane.pb')
        planes = list(jax.profiler.ProfileData.from_file(str(file)).planes)
        on_device = [plane for plane in planes if plane.name.startswith('/device:')]
        seconds: dict[str, float] = collections.defaultdict(float)
        for plane in on_device or planes:
            for line in plane.lines:
                for event in line.events:
                    if operation := dict(event.stats).get('hlo_op'):
                        seconds[operation] += event.duration_ns / 1e9 / runs
    return seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = step.make_parser('profile', __doc__)
    parser.add_argument('--mode', choices=['forward', 'train'], required=True, help='what to profile')
    parser.add_argument(
        '--top',
        type=commands.whole(0, 10**6),
        default=15,
        metavar='N',
        help='number of operations to list (default: %(default)s)',
    )
    return commands.exit_with(_work, parser, argv)


def _work(options: argparse.Namespace) -> None:
    batch = step.only_batch(options)
    step.check_sizes(options, options.model, batch)
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_gpu_enable_command_buffer='
    machine.disable_compilation_cache()
    with machine.catch_out_of_memory():
        compiled, run, _ = step.prepare(options, batch)
        run()
    times = machine.seconds(run, options.runs)
    names = operations(compiled.as_text() or '')
    seconds = {operation: spent for operation, spent in device_seconds(run, options.runs).items() if operation in names}
    parts: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])  # forward, backward
    busy = sum(seconds.values())
    for operation, spent in seconds.items():
        part, backward = part_of(names[operation])
        parts[part][backward] += spent
    print(f'{step.describe(options)}, {options.mode}, {batch} clip(s)', machine.describe(), sep='\n')
    print(f'a step takes {statistics.median(times):.4f} s, the device is busy for {busy:.4f} s of it')
    print(f'{"part":45}{"forward":>12}{"backward":>12}{"share":>8}')
    for part, (ahead, back) in sorted(parts.items(), key=lambda item: -sum(item[1])):
        print(f'{part:45}{1e3 * ahead:>9.2f} ms{1e3 * back:>9.2f} ms{(ahead + back) / busy:>8.1%}')
    print(f'{"the most expensive operations":93}share')
    for operation, spent in sorted(seconds.items(), key=lambda item: -item[1])[: options.top]:
        print(f'{operation[:30]:32}{names[operation][-58:]:60}{spent / busy:>6.1%}')


if __name__ == '__main__':
    sys.exit(main())
