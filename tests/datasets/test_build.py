"""Builds of any data set: one at a time, atomic, quiet, with a quick --help."""

import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile

import pytest
import raw_tree

from datasets import build
from sgmg_jax import files
from sgmg_jax.data import records
from sgmg_jax.datasets import video_records
from sgmg_jax.raw import youtube

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def raw(tmp_path):
    return raw_tree.write(tmp_path / 'raw')


def built(raw, **options):
    return build.build('ref_youtube_vos', raw, raw.parent / 'tfds', **options)


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_a_second_build_into_the_same_folder_is_refused(raw, monkeypatch):
    read, refused = youtube.read_frames, []

    def build_again(*arguments):
        for options in ({}, {'overwrite': True}):
            with pytest.raises(BlockingIOError, match=f'process {os.getpid()} .*, building ref_youtube_vos, is at'):
                built(raw, **options)
            refused.append(options)
        return read(*arguments)

    monkeypatch.setattr(youtube, 'read_frames', build_again)
    assert len(records.open_records(built(raw), 'train')) == 2
    assert len(refused) == 8  # Of each of four videos.


def test_a_failed_build_leaves_its_lock_only(raw):
    next(raw.rglob('*.jpg')).write_bytes(b'')
    with pytest.raises(ValueError, match='jpg'):
        built(raw)
    assert [path.name for path in (raw.parent / 'tfds').iterdir()] == ['.ref_youtube_vos.lock']


def test_only_the_lock_holder_removes_leftovers(raw):
    left = raw.parent / 'tfds' / 'ref_youtube_vos' / 'incomplete.1_1.0.0'
    left.mkdir(parents=True)
    with files.locked(raw.parent / 'tfds' / '.ref_youtube_vos.lock', 'building'):
        with pytest.raises(BlockingIOError):
            built(raw)
        assert left.is_dir()
    built(raw)
    assert not left.exists()


def test_two_data_sets_are_built_into_one_folder_at_once(raw):
    with files.locked(raw.parent / 'tfds' / '.refcoco.lock', 'building'):
        built(raw)


def test_records_stay_until_the_new_ones_are_complete(raw, monkeypatch):
    folder = built(raw)
    before = content(folder)
    read = youtube.read_frames

    def look(*arguments):
        assert content(folder) == before
        return read(*arguments)

    monkeypatch.setattr(youtube, 'read_frames', look)
    assert content(built(raw, overwrite=True)) == before

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(youtube, 'read_frames', interrupt)
    with pytest.raises(KeyboardInterrupt):
        built(raw, overwrite=True)
    assert content(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ['1.0.0']


LIMITED = """
import resource, sys
from datasets import build
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)  # As a disk that is full, for each file.
sys.exit(build.main(sys.argv[2:]))
"""


@pytest.mark.parametrize('limit, message', [(50_000, 'cannot write the records'), (100, 'cannot write the records')])
def test_a_full_disk_is_reported_and_keeps_the_old_records(raw, limit, message):
    folder = built(raw)
    before = content(folder)
    # The lines that the process runs are not counted: their file would be cut off as well.
    environment = {name: value for name, value in os.environ.items() if not name.startswith('COVERAGE_')}
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            LIMITED,
            str(limit),
            'ref_youtube_vos',
            f'--raw={raw}',
            f'--out={raw.parent / "tfds"}',
            '--overwrite',
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith('error: ') and message in done.stderr
    assert 'Traceback' not in done.stderr
    assert content(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ['1.0.0']


def test_a_folder_that_cannot_be_created_is_named(raw, capsys):
    (raw.parent / 'file').write_text('')
    assert build.main(['ref_youtube_vos', f'--raw={raw}', f'--out={raw.parent / "file" / "tfds"}']) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f'error: {raw.parent / "file"}') and 'directory' in error


def test_names_must_be_utf8(raw, capsys):
    """Raw files may lie below such a folder; array_record cannot write to one."""
    odd = raw.rename(raw.parent / '\udcff')
    command = ['ref_youtube_vos', f'--raw={odd}']
    assert build.main([*command, f'--out={raw.parent / "tfds"}']) == 0
    assert build.main([*command, f'--out={odd / "tfds"}']) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f'error: {raw.parent}/\\udcff/tfds: has bytes that are no text in UTF-8. Rename the folder.'
    )
    assert not (odd / 'tfds').exists()


def test_written_files_are_readable_by_others(raw):
    before = os.umask(0o022)
    try:
        folder = built(raw)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_build_prints_only_its_result(raw, capsys, monkeypatch):
    (raw.parent / 'tmp').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(raw.parent / 'tmp'))
    assert build.main(['ref_youtube_vos', f'--raw={raw}', f'--out={raw.parent / "tfds"}']) == 0
    captured = capsys.readouterr()
    assert captured.out == f'{raw.parent / "tfds/ref_youtube_vos/1.0.0"}: train 2 videos, valid 2 videos\n'
    assert captured.err == f'reading the lists of ref_youtube_vos in {raw}\n'
    assert not list((raw.parent / 'tmp').iterdir())  # tfds would leave a folder there.


@pytest.mark.parametrize(
    'shards, skipped, lengths',
    [(2, False, [2, 2]), (4, False, [1, 1, 1, 1]), (4, True, [1, 1, 1]), (None, False, [1, 1, 1, 1])],
)
def test_records_keep_their_order_in_several_files(raw, monkeypatch, shards, skipped, lengths):
    names = [f'{letter}{number:09d}' for number, letter in enumerate('fghi')]
    for name in names:
        shutil.copytree(raw / 'train/JPEGImages/bbb0000002', raw / 'train/JPEGImages' / name)
        shutil.copytree(raw / 'train/Annotations/bbb0000002', raw / 'train/Annotations' / name)

    def edit(videos):
        videos.update(dict.fromkeys(names, videos['bbb0000002']))
        del videos['bbb0000002'], videos['aaa0000001']

    raw_tree.edit_json(raw / 'meta_expressions/train/meta_expressions.json', edit)
    shutil.rmtree(raw / 'valid')
    if skipped:
        next((raw / 'train/JPEGImages' / names.pop(1)).iterdir()).write_bytes(b'')
    monkeypatch.setattr(video_records, 'SHARD_BYTES', 1)  # The writer of tfds would need TensorFlow from 1 GB on.
    folder = built(raw, shards=shards, skip_bad_videos=skipped)
    info = json.loads((folder / 'dataset_info.json').read_text())
    assert list(map(int, info['splits'][0]['shardLengths'])) == lengths
    source = records.open_records(folder, 'train')
    assert [record.video.name for record in source] == [video.name for video in source.videos] == names
    assert [record.video.name for record in records.open_records(folder, 'train[1:3]')] == names[1:3]


@pytest.mark.parametrize('shards', (3, 10**6))
def test_more_shards_than_videos_are_refused_at_once(raw, monkeypatch, shards):
    monkeypatch.setattr(youtube, 'read_frames', lambda *_: pytest.fail('was read'))
    with pytest.raises(ValueError, match=f"--shards = {shards}: split 'train' has 2 videos. Give fewer"):
        built(raw, shards=shards)


def test_unknown_data_set(raw):
    with pytest.raises(ValueError, match="data set 'ref_coco': must be one of a2d_sentences, "):
        build.build('ref_coco', raw, raw.parent)


HELP = """
import runpy, sys
sys.argv = [sys.argv[1], '--help']
try:
    runpy.run_module(sys.argv[0], run_name='__main__')
except SystemExit as done:
    assert not done.code, done.code
slow = {'tensorflow_datasets', 'jax', 'av', 'scipy', 'h5py', 'pycocotools', 'array_record', 'google.protobuf'}
print('slow:', sorted(slow & {*sys.modules}))
"""


@pytest.mark.parametrize('module', ['datasets.build', 'sgmg_jax.doctor', 'sgmg_jax.synthetic'])
def test_help_imports_nothing_heavy(module):
    done = subprocess.run([sys.executable, '-c', HELP, module], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f'usage: python -m {module}' in done.stdout and done.stdout.endswith('slow: []\n')
