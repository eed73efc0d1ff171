"""The doctor's verdict on a copy agrees with the builder's."""

import codecs
import copy
import gzip
import json
import os
import pathlib
import pickle
import shlex
import shutil
import subprocess

import h5py
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import PIL.EpsImagePlugin
import pytest
from raw_copies import write_a2d, write_davis, write_jhmdb, write_refcoco
import raw_mevis
import raw_tree

from datasets import build
from sgmg_jax.doctor import __main__ as doctor


def write_refcoco_alone(root, converted):
    write_refcoco(root, converted)
    shutil.rmtree(root / 'refcoco+')
    shutil.rmtree(root / 'refcocog')


def pack_all(root):
    for split in raw_mevis.VIDEOS:
        raw_mevis.pack(root, split)


COPIES = {
    'ref_youtube_vos': raw_tree.write,
    'ref_youtube_vos with ground truth': lambda root: raw_tree.add_ground_truth(raw_tree.write(root)),
    'ref_davis': lambda root: write_davis(root, converted=False),
    'ref_davis converted': lambda root: write_davis(root, converted=True),
    'mevis': raw_mevis.write,
    'mevis packed': lambda root: pack_all(raw_mevis.write(root)),
    'a2d_sentences': write_a2d,
    'jhmdb_sentences': write_jhmdb,
    'refcoco': lambda root: write_refcoco_alone(root, converted=False),
    'refcoco converted': lambda root: write_refcoco_alone(root, converted=True),
}


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
    """The builder's error, and the faults found by the doctor that prevent a build."""
    refused = ''
    try:
        build.build(name.split()[0], root, root.parent / 'tfds', overwrite=True)
    except (OSError, ValueError) as error:  # Anything else is a crash.
        refused = str(error)
    faults = [
        f'{finding.where}: {finding.what}'
        for report in doctor.diagnose(root, pixels=True)
        for finding in report.findings
        if not doctor._harmless(finding)
    ]
    recognised = any(report.name == name.split()[0] for report in doctor.diagnose(root))
    return refused, faults or ([] if recognised else ['is not recognised'])


def remove(file):
    file.unlink()


def empty(file):
    file.write_bytes(b'')


def cut(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


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
    """A byte order mark, and line ends of Windows."""
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


SPOILS = (
    remove,
    empty,
    cut,
    garbage,
    postscript,
    pipe,
    dead_link,
    own_link,
    link_out,
    link_inside,
    folder,
    capitals,
    twice,
    deep,
    wrong_types,
    windows,
    unclosed_quote,
    latin,
    header_alone,
    other_size,
    thin,
)
# Harmless for a build, but not for the scores: the doctor may be stricter.
STRICTER = ('Davis17_annot', 'missed_videos')


def kinds(root):
    """One file of each kind in a copy: the last per folder and ending."""
    found = {}
    for file in sorted(path for path in root.rglob('*') if path.is_file()):
        parts = file.relative_to(root).parts
        found[parts[:2] + (file.suffix,) + (() if len(parts) > 3 else (file.name,))] = file.relative_to(root)
    return sorted(found.values())


CASES = [
    pytest.param(name, spoil, number + position, id=f'{name}-{spoil.__name__}')
    for number, name in enumerate(COPIES)
    for position, spoil in enumerate(SPOILS)
    if (number + position) % 3 == 0
]


@pytest.mark.parametrize('name, spoil, turn', CASES)
def test_doctor_and_builder_agree_on_a_spoilt_file(copy_of, monkeypatch, name, spoil, turn):
    """Each way to spoil a file, in some of the copies, each time on another kind of file."""
    monkeypatch.setattr(PIL.EpsImagePlugin, 'Ghostscript', lambda *_, **__: pytest.fail('Ghostscript was started'))
    root = copy_of(name)
    files = kinds(root)
    file = files[turn % len(files)]
    spoil(root / file)
    refused, faults = verdicts(name, root)
    assert faults or not refused, f'{file}: the builder refuses ({refused}), the doctor says nothing'
    if not any(part in str(file) for part in STRICTER):
        # If a file is missing, a build may leave out a split, with a warning.
        faults = [fault for fault in faults if not fault.endswith('is not there')]
        assert refused or not faults, f'{file}: the builder takes it, the doctor says {faults}'


@pytest.mark.parametrize('name', COPIES)
def test_junk_files_are_ignored_by_both(copy_of, name):
    root = copy_of(name)
    for folder in [root, *(path for path in root.rglob('*') if path.is_dir())]:
        for junk in ('._00000.jpg', '._00002.h5', '._meta_expressions.json', '.DS_Store', 'Thumbs.db', 'desktop.ini'):
            (folder / junk).write_bytes(b'\x00\x05\x16\x07')
        (folder / '__MACOSX').mkdir()
        (folder / 'notes').mkdir()
        (folder / 'notes.md').write_text('mine')
    assert verdicts(name, root) == ('', [])


def deeper(*path):
    """Unpacked one level too deep: <path>/<last of path>/..."""

    def spoil(root):
        folder = root.joinpath(*path)
        folder.rename(root / 'aside')
        folder.mkdir()
        (root / 'aside').rename(folder / path[-1])

    return spoil


def elsewhere(source, target):
    def spoil(root):
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (root / source).rename(root / target)

    return spoil


MISPLACED = [
    ('ref_youtube_vos', deeper('train')),
    ('ref_youtube_vos', deeper('train', 'JPEGImages')),
    ('ref_youtube_vos', elsewhere('meta_expressions', 'new\x1b[31m folder/meta_expressions')),
    ('ref_youtube_vos with ground truth', deeper('valid')),
    ('ref_davis', deeper('DAVIS')),
    ('ref_davis', elsewhere('davis_text_annotations', 'texts')),
    ('ref_davis converted', deeper('valid', 'Annotations')),
    ('mevis', deeper('train')),
    ('mevis', deeper('valid_u', 'JPEGImages')),
    ('mevis', elsewhere('valid/JPEGImages', 'frames of valid')),
    ('mevis packed', deeper('valid')),
    ('a2d_sentences', deeper('Release')),
    ('a2d_sentences', elsewhere('Release/CLIPS320', 'clips')),
    ('jhmdb_sentences', deeper('Rename_Images')),
    ('jhmdb_sentences', elsewhere('puppet_mask', "it's/puppet_mask")),
    ('refcoco', deeper('train2014')),
    ('refcoco', elsewhere('refcoco', 'refer/refcoco')),
    ('refcoco converted', deeper('refcoco')),
]


@pytest.mark.parametrize('name, spoil', MISPLACED)
def test_the_build_works_after_the_doctors_commands(copy_of, name, spoil):
    root = copy_of(name)
    spoil(root)
    assert verdicts(name, root)[1]
    (report,) = doctor.diagnose(root)
    for finding in report.findings:
        if 'belongs at' in finding.what:
            subprocess.run(['bash', '-c', finding.mend], check=True)
    assert verdicts(name, pathlib.Path(report.root)) == ('', [])
    assert report.commands[0].endswith(f'--raw={shlex.quote(report.root)} --out=data/tfds')


@settings(max_examples=40)
@given(st.sampled_from(sorted(COPIES)), st.integers(0, 2**32 - 1))
def test_damaged_bytes(written, tmp_path_factory, name, seed):
    """For any bytes, both end with a message."""
    rng = np.random.default_rng(seed)
    root = tmp_path_factory.mktemp('damaged') / 'raw'
    shutil.copytree(written / name / 'raw', root)
    files = kinds(root)
    file = root / files[rng.integers(len(files))]
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice([1, 5, 50])):
        place = int(rng.integers(len(data) + 1))
        if rng.random() < 0.6:
            data[place : place + 1] = rng.bytes(1)
        else:
            data[place : place + int(rng.integers(2, 99))] = data[: int(rng.integers(99))]
    file.write_bytes(data)
    refused, faults = verdicts(name, root)
    assert faults or not refused, refused
    assert not refused or str(root) in refused, refused


ODD = [None, True, -1, 0, 1.5, 1e308, 10**30, '', ' ', '../x', '\ud800', '\x1b[2J', [], {}, [[]], ['a'], {'a': 1}]


def replace_somewhere(content, rng):
    """`content` with something odd in place of one of the values in it."""
    node = content
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        if not keys:
            return
        key = keys[rng.integers(len(keys))]
        if not isinstance(node[key], (dict, list)) or rng.random() < 0.15:
            node[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])
            return
        node = node[key]


@settings(max_examples=60)
@given(
    st.sampled_from([name for name in sorted(COPIES) if name not in ('ref_davis', 'a2d_sentences')]),
    st.integers(0, 2**32 - 1),
)
def test_odd_values(written, tmp_path_factory, name, seed):
    """For any content of a list of sentences, both end with a message."""
    rng = np.random.default_rng(seed)
    root = tmp_path_factory.mktemp('odd') / 'raw'
    shutil.copytree(written / name / 'raw', root)
    lists = [root / file for file in kinds(root) if file.suffix in ('.json', '.p')]
    file = lists[rng.integers(len(lists))]
    content = pickle.loads(file.read_bytes()) if file.suffix == '.p' else json.loads(file.read_text())
    replace_somewhere(content, rng)
    file.write_bytes(pickle.dumps(content, 2) if file.suffix == '.p' else json.dumps(content).encode())
    refused, faults = verdicts(name, root)
    assert faults or not refused, refused
    assert not refused or str(root) in refused and refused.isprintable(), refused


@pytest.mark.parametrize(
    'content',
    [
        '[]',
        '3',
        '{"videos": [1e30]}',
        '{"videos": [1000000000000000000000000000000]}',
        '{"videos": {"a": []}}',
        '{"videos": {"0123456789": {"expressions": [3]}}}',
        '{"videos": {"dog": {"expressions": {"0": 3}}}}',
    ],
)
def test_an_expressions_file_of_other_types(copy_of, content):
    root = copy_of('ref_youtube_vos')
    (root / 'meta_expressions/train/meta_expressions.json').write_text(content)
    refused, faults = verdicts('ref_youtube_vos', root)
    assert refused and faults


@pytest.mark.parametrize('bad', ['\0', '..', '/etc', '\x1b[2J', 'x' * 200_000])
@pytest.mark.parametrize(
    'name, file, old',
    [
        ('a2d_sentences', 'Release/videoset.csv', '_bcdefghijk'),
        ('a2d_sentences', 'text_annotations/a2d_annotation.txt', '_bcdefghijk'),
        ('jhmdb_sentences', 'jhmdb_sentences_samples_metadata.json', 'two_run_2'),
        ('ref_youtube_vos', 'meta_expressions/train/meta_expressions.json', 'bbb0000002'),
        ('ref_davis', 'DAVIS/ImageSets/2017/val.txt', 'dog'),
    ],
)
def test_names_that_lead_elsewhere_are_never_opened(copy_of, name, file, old, bad):
    root = copy_of(name)
    text = (root / file).read_text().replace(old, json.dumps(bad)[1:-1] if file.endswith('.json') else bad)
    (root / file).write_text(text)
    refused, faults = verdicts(name, root)
    assert faults and refused.isprintable()
    assert not any('/etc/' in fault for fault in faults)


def test_a_name_with_a_lone_surrogate(copy_of):
    root = copy_of('jhmdb_sentences')
    file = root / 'jhmdb_sentences_samples_metadata.json'
    file.write_text(file.read_text().replace('two_run_2', r'\ud800'))
    refused, faults = verdicts('jhmdb_sentences', root)
    assert file.name in refused and any('is not a valid folder name' in fault for fault in faults)


def no_instance(root):
    for file in root.rglob('*.h5'):
        with h5py.File(file, 'a') as content:
            content['instance'][()] = 77


def one_picture_twice(root):
    file = root / 'refcoco' / 'instances.json'
    content = json.loads(file.read_text())
    content['images'][1]['file_name'] = content['images'][0]['file_name']
    file.write_text(json.dumps(content))
    refs = pickle.loads((root / 'refcoco' / 'refs(unc).p').read_bytes())
    (root / 'refcoco' / 'refs(unc).p').write_bytes(pickle.dumps([ref | {'split': 'val'} for ref in refs], 0))


def only_test(root):
    shutil.copy(root / 'meta_expressions/valid/meta_expressions.json', root / 'meta_expressions/test')


@pytest.mark.parametrize(
    'name, spoil', [('a2d_sentences', no_instance), ('refcoco', one_picture_twice), ('ref_youtube_vos', only_test)]
)
def test_faults_across_several_files(copy_of, name, spoil):
    root = copy_of(name)
    spoil(root)
    refused, faults = verdicts(name, root)
    assert refused and faults


def test_a_folder_of_pipes_and_links(tmp_path, capsys):
    """None of it stops the doctor."""
    root = raw_tree.write(tmp_path / 'raw')
    for name in ('a.zip', 'b.tar', 'c.tgz', 'd.json', 'e.txt', 'f.csv', 'meta_expressions_x.json', 'refs(unc).p'):
        (root / 'pipes').mkdir(exist_ok=True)
        os.mkfifo(root / 'pipes' / name)
        (root / 'garbage').mkdir(exist_ok=True)
        (root / 'garbage' / name).write_bytes(np.random.default_rng(1).bytes(3000))
        (root / 'empty').mkdir(exist_ok=True)
        (root / 'empty' / name).touch()
        (root / 'loops').mkdir(exist_ok=True)
        (root / 'loops' / name).symlink_to(name)
    (root / 'loops' / 'up').symlink_to('..')
    os.mkdir(os.fsencode(root) + b'/\xff\x1b[2J')
    (root / 'garbage' / 'zero.zip').write_bytes(b'PK\x05\x06' + b'\xff' * 18)
    with gzip.open(root / 'garbage' / 'bomb.tgz', 'wb') as file:
        for _ in range(50):
            file.write(bytes(2**20))
    assert doctor.main([str(root)]) == 1
    captured = capsys.readouterr()
    assert all(line.isprintable() for line in captured.out.splitlines())
    assert 'is a broken archive' in captured.out and 'loops/a.zip: is a dead link' in captured.out
