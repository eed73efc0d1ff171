"""The doctor says of a copy what the builder does with it."""
import codecs
import os
import pathlib
import shutil

import numpy as np
from PIL import Image
import pytest
from raw_copies import write_a2d, write_davis, write_jhmdb, write_refcoco
import raw_tree

from datasets import build
from sgmg_jax.doctor import __main__ as doctor


def write_refcoco_alone(root, converted):
    write_refcoco(root, converted)
    shutil.rmtree(root / 'refcoco+')
    shutil.rmtree(root / 'refcocog')


COPIES = {
    'ref_youtube_vos': raw_tree.write,
    'ref_youtube_vos with ground truth': lambda root: raw_tree.add_ground_truth(raw_tree.write(root)),
    'ref_davis': lambda root: write_davis(root, converted=False),
    'ref_davis converted': lambda root: write_davis(root, converted=True),
    'a2d_sentences': write_a2d,
    'jhmdb_sentences': write_jhmdb,
    'refcoco': lambda root: write_refcoco_alone(root, converted=False),
    'refcoco converted': lambda root: write_refcoco_alone(root, converted=True)}


@pytest.fixture(scope='session')
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp('copies')
    for name, write in COPIES.items():
        write(root / name / 'raw')
    return root


@pytest.fixture
def copy_of(written, tmp_path):
    return lambda name: pathlib.Path(shutil.copytree(written / name / 'raw', tmp_path / 'raw'))


def verdicts(name, root):
    """What the builder refuses, and what the doctor says that stands in its way."""
    refused = ''
    try:
        build.build(name.split()[0], root, root.parent / 'tfds', overwrite=True)
    except (OSError, ValueError) as error:  # Anything else is a crash.
        refused = str(error)
    faults = [f'{finding.where}: {finding.what}' for report in doctor.diagnose(root, pixels=True)
              for finding in report.findings if not doctor._harmless(finding)]
    recognised = any(report.name == name.split()[0] for report in doctor.diagnose(root))
    return refused, faults or ([] if recognised else ['is not recognised'])


def remove(file):
    file.unlink()


def empty(file):
    file.write_bytes(b'')


def cut(file):
    data = file.read_bytes()
    file.write_bytes(data[:len(data) // 2])


def garbage(file):
    file.write_bytes(np.random.default_rng(0).bytes(700))


def postscript(file):
    file.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 54\nshowpage\n')


def pipe(file):
    file.unlink()
    os.mkfifo(file)


def dead_link(file):
    file.unlink()
    file.symlink_to('nowhere')


def own_link(file):
    file.unlink()
    file.symlink_to(file.name)


def link_out(file):
    target = file.parents[len(file.parts) - 1 - file.parts.index('raw')] / f'outside{file.suffix}'
    file.rename(target)
    file.symlink_to(target)


def link_inside(file):
    file.rename(file.with_name('target'))
    file.symlink_to('target')


def folder(file):
    file.unlink()
    file.mkdir()


def capitals(file):
    if file.suffix in ('.jpg', '.png', '.mp4', '.h5', '.mat'):
        file.rename(file.with_suffix(file.suffix.upper()))


def twice(file):
    if file.suffix in ('.jpg', '.png', '.mp4', '.h5', '.mat'):
        shutil.copy(file, file.with_suffix(file.suffix.upper()))


def deep(file):
    file.write_bytes(b'[' * 100_000)


def wrong_types(file):
    file.write_text('{"videos": [1, {"a": null}], "images": 3, "annotations": {"a": []}}')


def windows(file):
    """A byte order mark, and lines that end as on Windows."""
    if file.suffix in ('.txt', '.csv', '.json') and 'annot2' not in file.name:
        file.write_bytes(codecs.BOM_UTF8 + file.read_bytes().replace(b'\n', b'\r\n'))


def unclosed_quote(file):
    if file.suffix in ('.txt', '.csv'):
        file.write_bytes(file.read_bytes().replace(b'"', b'').replace(b',0,', b',0,"', 1))


def latin(file):
    if file.suffix in ('.txt', '.csv', '.json'):
        file.write_bytes(file.read_bytes().replace(b'a', 'é'.encode('latin-1'), 3))


def header_alone(file):
    if file.suffix in ('.txt', '.csv'):
        file.write_bytes(file.read_bytes().partition(b'\n')[0] + b'\n')


def other_size(file):
    if file.suffix in ('.jpg', '.png'):
        Image.open(file).resize((40, 20)).save(file)


def thin(file):
    if file.suffix in ('.jpg', '.png'):
        Image.open(file).resize((2000, 1)).save(file)


SPOILS = (remove, empty, cut, garbage, postscript, pipe, dead_link, own_link, link_out, link_inside, folder, capitals,
          twice, deep, wrong_types, windows, unclosed_quote, latin, header_alone, other_size, thin)
# Stands in no way of a build, but of the benchmark: the doctor may be stricter.
STRICTER = ('Davis17_annot', 'missed_videos')


def kinds(root):
    """One file of each kind that a copy has: the last of a folder's endings."""
    found = {}
    for file in sorted(path for path in root.rglob('*') if path.is_file()):
        parts = file.relative_to(root).parts
        found[parts[:2] + (file.suffix,) + (() if len(parts) > 3 else (file.name,))] = file.relative_to(root)
    return sorted(found.values())


def cases():
    """Each way to spoil a file of each copy, on another kind of file of each."""
    for number, name in enumerate(COPIES):
        for position, spoil in enumerate(SPOILS):
            yield pytest.param(name, spoil, number + position, id=f'{name}-{spoil.__name__}')


@pytest.mark.parametrize('name, spoil, turn', cases())
def test_a_spoilt_file(copy_of, name, spoil, turn):
    root = copy_of(name)
    files = kinds(root)
    file = files[turn % len(files)]
    spoil(root / file)
    refused, faults = verdicts(name, root)
    assert faults or not refused, f'{file}: the builder refuses ({refused}), the doctor says nothing'
    if not any(part in str(file) for part in STRICTER):
        # Of what is missing a build may leave out a split, with a warning.
        faults = [fault for fault in faults if not fault.endswith('is not there')]
        assert refused or not faults, f'{file}: the builder takes it, the doctor says {faults}'
