"""tests/tools/fuzz.py: a few inputs of every kind are handled well, and it detects bad endings."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import fuzz
import fuzz_changes
import pytest

TOOL = pathlib.Path(fuzz.__file__)


def test_commands_handle_some_inputs_of_every_kind():
    """In a subprocess: JAX may be running here, and a fork would lose its threads."""
    run = subprocess.run([sys.executable, TOOL, '--count=60', '--seed=1'], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    counts = [line.split()[1:5] for line in run.stdout.splitlines()[1:]]
    assert len(counts) == len(fuzz.TARGETS) + 1 and all(bad == '0' for *_, bad in counts)
    assert all(taken != '0' or refused != '0' for _, taken, refused, _ in counts)


def spin():
    while True:
        pass


def hold(size):
    bytearray(b'x') * size


def refuse(words):
    print(words)
    return 2


def write(path):
    pathlib.Path(path).write_text('x')


@pytest.mark.filterwarnings('ignore:os.fork')  # JAX's warning; the child does not use JAX
@pytest.mark.parametrize(
    'work, bad',
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), 'killed by SIGKILL'),
        (lambda: [][0], 'crashed: IndexError: list index out of range'),
        (spin, 'hung'),
        (lambda: time.sleep(60), 'hung'),
        (lambda: hold(fuzz.MEMORY + 2**26), 'took 2.1 GiB'),
        (lambda: hold(5 * fuzz.MEMORY), 'crashed: MemoryError'),
        (lambda: refuse('error: wrong'), 'names neither file nor field'),
        (lambda: refuse('error: a.json: \x1b[2J'), r"prints '\x1b'"),
        (lambda: write('../in/new'), 'changed in/new'),
        (lambda: write('new'), 'changed home/new'),
        (lambda: os.remove('../in/a.json'), 'changed in/a.json'),
        (lambda: write('../out/.partial-0a.json'), 'left out/.partial-0a.json'),
        (lambda: refuse('error: a.json: wrong'), None),
        (lambda: write('../out/b.json'), None),
    ],
)
def test_bad_endings_are_detected(work, bad, tmp_path):
    (tmp_path / 'in').mkdir()
    write(tmp_path / 'in' / 'a.json')
    found, ending = fuzz.judge(work, tmp_path, {'a.json'}, seconds=1 if bad == 'hung' else 20)
    assert found == ([bad] if bad else []), ending


def test_inputs_are_determined_by_their_number(tmp_path):
    changed = []
    for name in 'a', 'b':
        (tmp_path / name / 'x').mkdir(parents=True)
        (tmp_path / name / 'x' / 'c.json').write_text('{"key": [1, 2, 3], "other": {"a": "b"}}')
        (tmp_path / name / 'x' / 'd.txt').write_text('one two\nthree,4\n')
        kind, target, rng = fuzz.draw(7, 0, ['build', 'score'])
        assert kind == 'score' and target in fuzz.TARGETS['score']
        change = fuzz_changes.change(tmp_path / name, tmp_path / f'outside {name}', rng)
        changed.append(
            (
                change,
                [
                    (path.name, path.lstat().st_mode, path.lstat().st_size)
                    for path in sorted((tmp_path / name).rglob('*'))
                ],
            )
        )
    assert changed[0] == changed[1]


@pytest.mark.parametrize(
    'name, data',
    [('x.json', b'{"a": [1, {"b": "c"}]}'), ('x.csv', b'a,b\n"c, d",e\n'), ('x.bin', bytes(100)), ('x.json', b'3')],
)
def test_every_kind_of_change_happens(name, data, tmp_path):
    differ = 0
    for seed in range(100):
        rng = random.Random(seed)
        structured = fuzz_changes.change_structure(name, data, rng)
        differ += bool(structured and structured[0] != data) + (fuzz_changes.change_bytes(data, rng)[0] != data)
    assert differ > (150 if structured else 80)
