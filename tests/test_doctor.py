import json
import pathlib
import pickle
import shlex
import shutil
import subprocess

import h5py
import numpy as np
from PIL import Image
import pytest
from raw_copies import write_a2d, write_davis, write_jhmdb, write_refcoco
import raw_tree
import scipy.io

from datasets import build
from sgmg_jax import synthetic as world
from sgmg_jax.doctor import __main__ as doctor
from sgmg_jax.doctor import davis as davis_checks
from sgmg_jax.doctor import frame_sets, places
from sgmg_jax.doctor import youtube as youtube_checks


def facts(folder, name, pixels=False):
    """The findings of a data set as text, without counts, which are always wrong in a small tree."""
    (report,) = (report for report in doctor.diagnose(folder, pixels) if report.name == name)
    assert {finding.level for finding in report.findings} <= {'ok', 'note', 'missing', 'wrong'}
    return [
        f'{f.level} {f.where.removeprefix(report.root + "/")}: {f.what}'
        for f in report.findings
        if ', known ' not in f.what
    ]


def bad(folder, name, pixels=False):
    return [fact for fact in facts(folder, name, pixels) if not fact.startswith(('ok', 'note'))]


def mends(folder, name):
    """The commands of a report."""
    (report,) = (report for report in doctor.diagnose(folder) if report.name == name)
    return [finding.mend for finding in report.findings if finding.level == 'wrong']


def follow(folder, name):
    """Runs the commands of the report; afterwards nothing is misplaced."""
    for command in mends(folder, name):
        subprocess.run(command, shell=True, check=True)
    assert not mends(folder, name)


# Ref-YouTube-VOS


@pytest.fixture
def youtube(tmp_path):
    return raw_tree.write(tmp_path / 'home' / 'my data')


def test_an_intact_copy_is_ready_to_build(youtube, monkeypatch, capsys, tmp_path):
    counts = {'train': (2, 8, None), 'valid and test': (3, 12, 12), 'valid': (2, 8, 8), 'test': (1, 4, 4)}
    monkeypatch.setattr(youtube_checks, 'COUNTS', counts)
    for pixels in ((), ('--pixels',)):
        assert doctor.main([str(youtube), *pixels, f'--json={tmp_path / "report.json"}']) == 0
        out = capsys.readouterr().out
        assert 'found 8, known 8' in out and 'all 13 frames and masks of 2 videos' in out
        command = out.strip().splitlines()[-1].removeprefix('build it: ')
        assert command == f"python -m datasets.build ref_youtube_vos --raw='{youtube}' --out=data/tfds"
    content = json.loads((tmp_path / 'report.json').read_text())
    assert content['status'] == 0 and content['data_sets'][0]['name'] == 'ref_youtube_vos'
    assert {finding['level'] for finding in content['data_sets'][0]['findings']} == {'ok', 'note'}


def test_differing_counts_are_missing_or_wrong(youtube, monkeypatch, capsys):
    monkeypatch.setitem(youtube_checks.COUNTS, 'train', (2, 7, None))
    assert doctor.main([str(youtube)]) == 1
    out = capsys.readouterr().out
    assert 'wrong    meta_expressions/train/meta_expressions.json: train: expressions: found 8, known 7' in out
    assert 'missing  meta_expressions/valid/meta_expressions.json: valid: videos: found 2, known 202' in out
    assert 'first fix what is missing or wrong, then build it: python -m datasets.build' in out


def nest(*path):
    """Unpacked one level too deep: <path>/<last of path>/..."""

    def spoil(root):
        folder = root.joinpath(*path)
        folder.rename(root / 'aside')
        folder.mkdir()
        (root / 'aside').rename(folder / path[-1])

    return spoil


def displace(source, target):
    def spoil(root):
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (root / source).rename(root / target)

    return spoil


SPOILT = {
    'a level too many in train': nest('train'),
    'a level too many in valid': nest('valid'),
    'a level too many in meta_expressions': nest('meta_expressions'),
    'a level too many of frames': nest('train', 'JPEGImages'),
    'frames without their folder': displace('valid', 'old/valid'),
    'meta_expressions beside the root': displace('meta_expressions', '../meta_expressions'),
    'another name': displace('train/JPEGImages', 'train/frames'),
    'frames of valid in test': displace('valid', 'test'),
    'masks in the root': displace('train/Annotations', 'Annotations'),
    'a file in the root': displace('meta_expressions/valid/meta_expressions.json', 'meta_expressions.json'),
}


@pytest.mark.parametrize('spoil', SPOILT.values(), ids=SPOILT)
def test_the_commands_of_the_report_fix_the_tree(youtube, spoil):
    before = facts(youtube, 'ref_youtube_vos')
    assert not bad(youtube, 'ref_youtube_vos')
    files = sorted(path.name for path in youtube.parent.rglob('*.*'))
    spoil(youtube)
    wrong = bad(youtube, 'ref_youtube_vos')
    assert wrong and all('belongs at' in fact for fact in wrong)
    follow(youtube, 'ref_youtube_vos')
    assert facts(youtube, 'ref_youtube_vos') == before
    assert sorted(path.name for path in youtube.parent.rglob('*.*')) == files


@pytest.mark.parametrize('videos, split', [(('ddd0000004',), 'test'), (('ccc0000003', 'ddd0000004'), 'valid')])
def test_frames_belong_to_the_split_of_most_of_their_videos(youtube, videos, split):
    shutil.rmtree(youtube / 'valid')
    raw_tree.save_frames(youtube, 'unpacked', {video: raw_tree.VALID[video] for video in videos})
    assert f'wrong unpacked/JPEGImages: lies in the wrong place; it belongs at {youtube}/{split}/JPEGImages' in bad(
        youtube, 'ref_youtube_vos'
    )


def test_everything_a_level_too_deep(youtube):
    before = facts(youtube, 'ref_youtube_vos')
    for split in ('train', 'valid', 'meta_expressions'):
        nest(split)(youtube)
    follow(youtube, 'ref_youtube_vos')
    assert facts(youtube, 'ref_youtube_vos') == before


@pytest.mark.parametrize('named', ['.', '..', 'train', 'train/JPEGImages', 'meta_expressions/valid'])
def test_the_root_is_found_from_any_folder_of_it(youtube, named):
    (report,) = doctor.diagnose(youtube / named)
    assert report.root == str(youtube) and not [f for f in report.findings if 'belongs' in f.what]


def test_missing_parts_are_named_with_their_archive(youtube):
    shutil.rmtree(youtube / 'train' / 'Annotations')
    (youtube / 'meta_expressions' / 'train' / 'meta_expressions.json').unlink()
    assert bad(youtube, 'ref_youtube_vos') == [
        'missing meta_expressions/train/meta_expressions.json: is not there',
        'missing train/Annotations: is not there',
    ]
    shutil.rmtree(youtube / 'valid')
    (youtube / 'valid').mkdir()
    assert 'missing valid/JPEGImages: is not there' in bad(youtube, 'ref_youtube_vos')


def test_packed_parts_get_an_unpack_command(youtube):
    before = facts(youtube, 'ref_youtube_vos')
    shutil.make_archive(str(youtube / 'valid'), 'zip', youtube, 'valid')
    shutil.make_archive(str(youtube / 'words'), 'gztar', youtube, 'meta_expressions')
    (youtube / 'words.tar.gz').rename(youtube / 'words.tgz')
    shutil.rmtree(youtube / 'valid')
    shutil.rmtree(youtube / 'meta_expressions')
    (report,) = doctor.diagnose(youtube)
    commands = {finding.mend for finding in report.findings if finding.level == 'missing'}
    assert commands == {
        f"unzip -q '{youtube}/valid.zip' -d '{youtube}'",
        f"tar -xf '{youtube}/words.tgz' -C '{youtube}'",
    }
    shutil.unpack_archive(youtube / 'valid.zip', youtube)
    subprocess.run(f"tar -xf '{youtube}/words.tgz' -C '{youtube}'", shell=True, check=True)
    assert facts(youtube, 'ref_youtube_vos') == before


def test_only_archives(youtube, tmp_path):
    downloads = tmp_path / 'downloads'
    shutil.make_archive(str(downloads / 'train'), 'zip', youtube, 'train')
    shutil.make_archive(str(tmp_path / 'all' / 'everything'), 'zip', downloads)
    (downloads / 'cut.zip').write_bytes((downloads / 'train.zip').read_bytes()[:-100])
    folder, report = doctor.diagnose(downloads)
    assert [f.what[:19] for f in folder.findings] == ['is a broken archive']
    assert {
        finding.mend for finding in report.findings if '/train/' in finding.where and 'meta' not in finding.where
    } == {f'unzip -q {downloads}/train.zip -d {downloads}'}
    (folder,) = doctor.diagnose(tmp_path / 'all')
    assert folder.findings[0].what == 'is an archive of archives (train.zip)'
    assert doctor.main([str(tmp_path / 'all')]) == 2


def test_damaged_files_are_counted_with_examples(youtube):
    frames, masks = (youtube / 'train' / kind / 'bbb0000002' for kind in ('JPEGImages', 'Annotations'))
    (frames / '00005.jpg').unlink()
    (frames / '00010.jpg').write_bytes(b'')
    (frames / '00000.jpg').write_bytes(b'<html>Quota exceeded</html>')
    (masks / '00030.png').unlink()
    (masks / '00030.png').symlink_to('nowhere.png')
    Image.open(youtube / 'train/Annotations/aaa0000001/00020.png').resize((40, 20)).save(masks / '00025.png')
    middle = youtube / 'train' / 'JPEGImages' / 'aaa0000001' / '00025.jpg'
    middle.write_bytes(middle.read_bytes()[:200])
    quick = [
        'missing train/JPEGImages: files that are listed and not there: 1 (bbb0000002/00005.jpg)',
        'wrong train/JPEGImages: files of zero bytes: 1 (bbb0000002/00010.jpg)',
        'wrong train/JPEGImages: broken images (is not JPEG or PNG, or damaged at its beginning): 1 '
        '(bbb0000002/00000.jpg)',
        'wrong train/Annotations: dead links: 1 (bbb0000002/00030.png)',
        'wrong train/Annotations: images that differ in size from the first of their video: 1 '
        '(bbb0000002/00025.png is 40x20, not 96x54)',
    ]
    assert sorted(bad(youtube, 'ref_youtube_vos')) == sorted(quick)
    slow = bad(youtube, 'ref_youtube_vos', pixels=True)
    assert set(quick) < set(slow) and len(slow) == len(quick) + 1
    assert any('2 of 2 of train cannot be read' in fact and '00025.jpg: broken JPEG' in fact for fact in slow)


def test_other_endings_and_colours(youtube):
    for file in (youtube / 'valid' / 'JPEGImages' / 'ccc0000003').iterdir():
        Image.open(file).save(file.with_suffix('.png'))
        file.unlink()
    mask = youtube / 'train' / 'Annotations' / 'aaa0000001' / '00020.png'
    Image.open(mask).convert('RGB').save(mask)
    jpeg = youtube / 'train' / 'JPEGImages' / 'aaa0000001' / '00020.jpg'
    Image.open(jpeg).save(jpeg, 'PNG')
    found = ' | '.join(bad(youtube, 'ref_youtube_vos'))
    assert 'files end in .png, not in .jpg: 4 (ccc0000003/00000.png' in found
    assert 'masks of colour mode RGB; a mask holds object ids (mode P or L): 1 (aaa0000001/00020.png)' in found
    assert 'files that are PNG, not JPEG: 1 (aaa0000001/00020.jpg)' in found


@pytest.mark.parametrize('mode', ['1', 'L', 'P'])
def test_masks_may_have_every_mode_of_ids(youtube, mode):
    mask = youtube / 'train' / 'Annotations' / 'aaa0000001' / '00020.png'
    Image.fromarray(np.uint8(np.asarray(Image.open(mask)) == 1) * (255 if mode == '1' else 1)).convert(mode).save(mask)
    assert Image.open(mask).mode == mode and not bad(youtube, 'ref_youtube_vos')


@pytest.mark.parametrize(
    'edit, fault',
    [
        (
            lambda v: v['aaa0000001']['expressions']['1'].update(exp=' '),
            '"exp" is missing or empty: 1 (video aaa0000001, ',
        ),
        (lambda v: v['aaa0000001']['expressions']['1'].update(obj_id='1.5'), "expression 1: '1.5')"),
        (lambda v: v['aaa0000001']['expressions']['1'].pop('obj_id'), 'expression 1: 0)'),
        (lambda v: v['aaa0000001'].pop('frames'), 'field "frames" is no list of names: 1 (aaa0000001)'),
        (lambda v: v['aaa0000001'].update(expressions={}), '"expressions" is missing or empty: 1 (aaa0000001)'),
        (lambda v: v['aaa0000001']['frames'].append('00020'), 'names a frame twice: 1 (aaa0000001)'),
        (lambda v: v.update({'../aaa0000001': v['aaa0000001']}), "is not a valid folder name: 1 ('../aaa0000001')"),
    ],
)
def test_faults_of_the_expressions_file(youtube, edit, fault):
    raw_tree.edit_json(youtube / 'meta_expressions/train/meta_expressions.json', edit)
    found = bad(youtube, 'ref_youtube_vos')
    assert len(found) == 1 and fault in found[0]
    with pytest.raises(ValueError, match='aaa0000001'):  # The builder agrees.
        build.build('ref_youtube_vos', youtube, youtube.parent / 'tfds')


def test_expression_ids_must_be_whole_numbers(youtube):
    raw_tree.edit_json(
        youtube / 'meta_expressions/train/meta_expressions.json',
        lambda videos: videos['aaa0000001']['expressions'].update(x={'exp': 'a', 'obj_id': '1'}),
    )
    (found,) = bad(youtube, 'ref_youtube_vos')
    assert 'id is no whole number: 1 (video aaa0000001, expression x)' in found


def test_an_object_without_a_mask_is_found_with_pixels(youtube):
    raw_tree.edit_json(
        youtube / 'meta_expressions/train/meta_expressions.json',
        lambda videos: videos['aaa0000001']['expressions']['1'].update(obj_id='7'),
    )
    assert not bad(youtube, 'ref_youtube_vos')
    (found,) = bad(youtube, 'ref_youtube_vos', pixels=True)
    assert 'video aaa0000001, expression 1: obj_id 7 is in no mask' in found and 'hold the ids [1, 2]' in found


@pytest.mark.parametrize(
    'text, fault',
    [
        ('', 'is not JSON (it is empty)'),
        ('{"videos": {"a', 'is not JSON'),
        ('[]', 'field "videos" is missing or empty'),
        ('<html>', 'is not JSON'),
    ],
)
def test_invalid_json_is_reported(youtube, text, fault):
    (youtube / 'meta_expressions/valid/meta_expressions.json').write_text(text)
    (found,) = bad(youtube, 'ref_youtube_vos')
    assert found.startswith('wrong meta_expressions/valid/meta_expressions.json: ' + fault)
    raw_tree.add_ground_truth(youtube)  # It is taken instead of that file.
    assert not bad(youtube, 'ref_youtube_vos')
    (youtube / 'valid/meta_expressions_challenge.json').write_text(text)
    (found,) = bad(youtube, 'ref_youtube_vos')
    assert found.startswith('wrong valid/meta_expressions_challenge.json: ' + fault)


def test_public_ground_truth(youtube):
    raw_tree.add_ground_truth(youtube)
    assert 'ok valid/Annotations: the masks of all 8 expressions are there' in facts(youtube, 'ref_youtube_vos')
    (youtube / 'valid/Annotations/ccc0000003/2/00005.png').unlink()
    assert bad(youtube, 'ref_youtube_vos') == [
        'missing valid/Annotations: files that are listed and not there: 1 (ccc0000003/2/00005.png)'
    ]
    shutil.rmtree(youtube / 'valid/Annotations/ccc0000003')
    raw_tree.save_mask(youtube / 'valid/Annotations/ccc0000003/00000.png', raw_tree.mask(0))
    (found,) = bad(youtube, 'ref_youtube_vos')
    assert 'holds index masks (ccc0000003)' in found
    shutil.rmtree(youtube / 'valid/Annotations')
    assert bad(youtube, 'ref_youtube_vos') == ['missing valid/Annotations: is not there']


def test_videos_of_another_split_and_unknown_folders_are_noted(youtube):
    (youtube / 'valid/JPEGImages/ccc0000003').rename(youtube / 'train/JPEGImages/ccc0000003')
    (youtube / 'train/JPEGImages/0123456789').mkdir()
    (youtube / 'train/JPEGImages/.DS_Store').write_text('x')
    found = facts(youtube, 'ref_youtube_vos')
    assert ('note train/JPEGImages: 1 folders of videos of valid (ccc0000003), which are not used here') in found
    assert 'note train/JPEGImages: 1 folders that no expressions file lists (0123456789), which are not used' in found
    assert 'missing valid/JPEGImages: folders of videos that are listed and not there: 1 (ccc0000003)' in found


def test_masks_of_unlisted_frames_are_noted(youtube):
    assert not any('unlisted' in fact for fact in facts(youtube, 'ref_youtube_vos'))
    raw_tree.save_mask(youtube / 'train/Annotations/aaa0000001/99999.png', raw_tree.mask(0))
    note = 'note train/Annotations: videos with masks of unlisted frames, which are ignored: 1 (aaa0000001)'
    assert note in facts(youtube, 'ref_youtube_vos')


def test_known_counts_of_valid_and_test_add_up():
    counts = youtube_checks.COUNTS
    assert counts['valid and test'] == tuple(map(sum, zip(counts['valid'], counts['test'])))


def test_without_a_test_file_valid_has_the_videos_with_frames(youtube):
    shutil.rmtree(youtube / 'meta_expressions/test')
    assert not bad(youtube, 'ref_youtube_vos')
    assert 'note meta_expressions/test/meta_expressions.json: is not there' in facts(youtube, 'ref_youtube_vos')


def test_junk_dead_links_and_a_second_copy(youtube):
    shutil.copytree(youtube, youtube.parent / 'second')
    (youtube / '__MACOSX' / 'train' / 'JPEGImages').mkdir(parents=True)
    (youtube / 'train.zip').symlink_to('/nowhere')
    reports = {report.name: report for report in doctor.diagnose(youtube.parent)}
    assert [(f.level, f.mend.split()[0]) for f in reports['folder'].findings] == [('wrong', 'Fix'), ('note', 'rm')]
    copies = [f for f in reports['ref_youtube_vos'].findings if 'another copy' in f.what]
    assert len(copies) == 1 and copies[0].where in (str(youtube), str(youtube.parent / 'second'))


def test_no_data_set(tmp_path, capsys):
    assert doctor.main([str(tmp_path)]) == 2
    assert 'no data set is recognised' in capsys.readouterr().err
    assert doctor.main([str(tmp_path / 'nowhere')]) == 2
    assert 'no such folder' in capsys.readouterr().err


# Ref-DAVIS17


@pytest.mark.parametrize('converted', [False, True])
def test_davis(tmp_path, converted):
    root = write_davis(tmp_path / 'davis', converted)
    for pixels in (False, True):
        assert not bad(root, 'ref_davis', pixels)
    found = facts(root, 'ref_davis')
    assert any('all 6 frames and masks of 2 videos' in fact for fact in found)
    assert any('all 3 frames and masks of 1 videos' in fact for fact in found)
    (report,) = doctor.diagnose(root)
    (lacking,) = (f for f in report.findings if 'valid: videos' in f.what)
    assert 'found 2, known 30' in lacking.what and 'bike-packing' in lacking.mend and 'dog,' not in lacking.mend
    frames = 'train/JPEGImages' if converted else 'DAVIS/JPEGImages/480p'
    (root / frames / 'classic-car/00002.jpg').write_bytes(b'')
    assert bad(root, 'ref_davis') == [f'wrong {frames}: files of zero bytes: 1 (classic-car/00002.jpg)']


def test_converted_davis_without_train(tmp_path):
    root = write_davis(tmp_path / 'davis', converted=True)
    shutil.rmtree(root / 'train')
    shutil.rmtree(root / 'meta_expressions/train')
    assert not bad(root, 'ref_davis')
    assert 'note train: the train split is not here; it is not needed to evaluate' in facts(root, 'ref_davis')


def test_converted_davis_without_masks(tmp_path):
    root = write_davis(tmp_path / 'davis', converted=True)
    shutil.rmtree(root / 'valid/Annotations')
    assert bad(root, 'ref_davis') == ['missing valid/Annotations: is not there']
    (report,) = doctor.diagnose(root)
    assert davis_checks.SOURCE + ' Then convert it.' in [finding.mend for finding in report.findings]


def test_davis_texts_are_compared_only_if_all_are_there(tmp_path):
    root = write_davis(tmp_path / 'davis', converted=False)
    assert any('valid: objects' in finding.what for finding in doctor.diagnose(root)[0].findings)
    (root / 'davis_text_annotations/Davis17_annot2.txt').unlink()
    assert bad(root, 'ref_davis') == ['missing davis_text_annotations/Davis17_annot2.txt: is not there']
    assert not any('valid: objects' in finding.what for finding in doctor.diagnose(root)[0].findings)


def test_davis_packs_with_lists_for_the_official_evaluation(tmp_path):
    root = write_davis(tmp_path / 'davis', converted=True)
    before = facts(root, 'ref_davis')
    (root / 'valid/ImageSets/2017').mkdir(parents=True)
    (root / 'valid/ImageSets/2017/val.txt').write_text('blackswan\ndog\n')
    assert facts(root, 'ref_davis') == before


def test_davis_packs_with_a_level_of_resolution(tmp_path):
    root = write_davis(tmp_path / 'davis', converted=True)
    for folder in ('valid/JPEGImages', 'valid/Annotations'):
        nest(*folder.split('/'))(root)
        name = folder.split('/')[1]
        (root / folder / name).rename(root / folder / '480p')
    (root / 'valid/Annotations').rename(root / 'valid/Annotations_unsupervised')
    assert not bad(root, 'ref_davis')


@pytest.mark.parametrize('part', [False, True])
def test_davis_originals_in_the_wrong_place(tmp_path, part):
    root = write_davis(tmp_path / 'davis', converted=False)
    if part:
        shutil.rmtree(root / 'DAVIS/JPEGImages/480p/classic-car')
    before = facts(root, 'ref_davis')
    for source, target in (('DAVIS/JPEGImages/480p', '480p'), ('davis_text_annotations', 'text')):
        displace(source, target)(root)
    wrong = bad(root, 'ref_davis')
    assert len([fact for fact in wrong if 'belongs at' in fact]) == 5
    follow(root, 'ref_davis')
    assert facts(root, 'ref_davis') == before


def test_davis_masks_of_the_semi_supervised_task(tmp_path):
    root = write_davis(tmp_path / 'davis', converted=False)
    (root / 'DAVIS/Annotations_unsupervised').rename(root / 'DAVIS/Annotations')
    (root / 'davis_text_annotations/Davis17_annot2.txt').write_bytes(b'blackswan one "a swan"\ndog 1 "a dog"\n')
    found = ' | '.join(bad(root, 'ref_davis'))
    assert 'missing DAVIS/Annotations_unsupervised/480p: is not there' in found
    assert 'wrong DAVIS/Annotations/480p: are the masks of the semi-supervised task' in found
    assert 'in quotes: 1 (line 1: \'blackswan one "a swan"\')' in found
    assert 'Davis17_annot2.txt: has no sentence for 3 objects' in found
    (root / 'davis_text_annotations/Davis17_annot1.txt').write_bytes(b'dog 1 "its \xe9gg"\n')
    assert 'Davis17_annot1.txt: is not text in utf-8' in ' | '.join(bad(root, 'ref_davis'))


# A2D-Sentences


@pytest.mark.parametrize('clips', ['CLIPS320', 'clips320H'])
def test_a2d(tmp_path, clips):
    root = write_a2d(tmp_path / 'a2d', clips)
    for pixels in (False, True):
        assert not bad(root, 'a2d_sentences', pixels)
    assert 'ok text_annotations/a2d_annotation_with_instances: all 2 videos have masks, in 4 frames' in facts(
        root, 'a2d_sentences'
    )
    (root / f'Release/{clips}/_bcdefghijk.mp4').write_bytes(b'<html>')
    shutil.rmtree(root / 'text_annotations/a2d_annotation_with_instances/--h5fAKYurM')
    (root / 'text_annotations/a2d_annotation_with_instances/_bcdefghijk/00002.h5').write_bytes(b'\x89HDX')
    found = bad(root, 'a2d_sentences')
    assert len(found) == 3
    assert 'no mp4 header): 1 (_bcdefghijk.mp4)' in found[0]
    assert 'without a mask (.h5): 1 (--h5fAKYurM)' in found[1]
    assert '1 (_bcdefghijk/00002.h5)' in found[2]


def test_a2d_decodes_with_pixels(tmp_path):
    root = write_a2d(tmp_path / 'a2d')
    film = root / 'Release/CLIPS320/_bcdefghijk.mp4'
    film.write_bytes(film.read_bytes()[:100])
    with h5py.File(root / 'text_annotations/a2d_annotation_with_instances/--h5fAKYurM/00004.h5', 'a') as file:
        del file['reMask']
    assert not bad(root, 'a2d_sentences')
    found = bad(root, 'a2d_sentences', pixels=True)
    assert len(found) == 2 and '_bcdefghijk.mp4: broken mp4' in found[1]
    assert '--h5fAKYurM/00004.h5: must have the data sets instance and reMask' in found[0]


def test_a2d_text_and_places(tmp_path):
    root = write_a2d(tmp_path / 'a2d')
    before = facts(root, 'a2d_sentences')
    for name in ('videoset.csv', 'CLIPS320'):
        (root / 'Release' / name).rename(root / name)
    (root / 'Release').rmdir()
    wrong = bad(root, 'a2d_sentences')
    assert len(wrong) == 2 and all('belongs at' in fact for fact in wrong)
    commands = mends(root, 'a2d_sentences')
    assert all(command.startswith('mkdir -p') for command in commands)
    follow(root, 'a2d_sentences')
    assert facts(root, 'a2d_sentences') == before
    with open(root / 'Release/videoset.csv', 'a') as file:
        file.write('too,few\n')
    with open(root / 'text_annotations/a2d_annotation.txt', 'a') as file:
        file.write('_bcdefghijk,two,a bird\n_bcdefghijk,2, \nunknownsixx,0,a cat\n')
    found = ' | '.join(bad(root, 'a2d_sentences'))
    for fault in (
        "line 4: 'too,few'",
        'instance_id is no whole number: 1 (line 6',
        'empty sentences: 1 (line 7',
        '1 videos with sentences are not in it (unknownsixx)',
        'not there: 1 (unknownsixx.mp4)',
    ):
        assert fault in found


# JHMDB-Sentences


@pytest.mark.parametrize('prefix', ['./jhmdb_sentences', '/home/somebody/jhmdb'])
def test_jhmdb(tmp_path, prefix):
    root = write_jhmdb(tmp_path / 'jhmdb', prefix)
    for pixels in (False, True):
        assert not bad(root, 'jhmdb_sentences', pixels)
    assert 'ok Rename_Images: all 12 frames of 2 videos are there' in facts(root, 'jhmdb_sentences')
    before = facts(root, 'jhmdb_sentences')
    displace('Rename_Images', 'JHMDB/Rename_Images')(root)
    displace('puppet_mask', 'puppet_mask_1')(root)
    follow(root, 'jhmdb_sentences')
    assert facts(root, 'jhmdb_sentences') == before
    (root / 'Rename_Images/run/one_run_1/00006.png').unlink()
    mask = root / 'puppet_mask/run/two_run_2/puppet_mask.mat'
    scipy.io.savemat(mask, {'part_mask': np.ones((54, 96, 4), np.uint8)})
    assert len(bad(root, 'jhmdb_sentences')) == 1
    found = bad(root, 'jhmdb_sentences', pixels=True)
    assert 'not there: 1 (run/one_run_1/00006.png)' in found[0] and 'part_mask ends after 4 frames' in found[1]
    mask.write_bytes(b'garbage')
    found = bad(root, 'jhmdb_sentences')
    assert 'no MATLAB header): 1 (run/two_run_2/puppet_mask.mat)' in found[1]
    (root / frame_sets.JHMDB_SAMPLES).unlink()
    assert bad(root, 'jhmdb_sentences') == [f'missing {frame_sets.JHMDB_SAMPLES}: is not there']


# RefCOCO


@pytest.mark.parametrize('converted', [False, True])
def test_refcoco(tmp_path, converted):
    root = write_refcoco(tmp_path / 'coco', converted)
    for pixels in (False, True):
        assert not bad(root, 'refcoco', pixels)
    (report,) = doctor.diagnose(root)
    assert [command.split()[3] for command in report.commands] == ['refcoco', 'refcoco_plus', 'refcocog']
    levels = {finding.what.split(':')[0]: finding.level for finding in report.findings if ', known ' in finding.what}
    assert levels['refcoco train'] == 'missing' and levels['refcoco+ train'] == levels['refcocog test'] == 'note'
    (root / 'train2014/COCO_train2014_000000000009.jpg').unlink()
    found = bad(root, 'refcoco')
    assert found == ['missing train2014: files that are listed and not there: 1 (COCO_train2014_000000000009.jpg)']


def test_refcoco_in_other_folders(tmp_path):
    root = write_refcoco(tmp_path / 'coco')
    before = facts(root, 'refcoco')
    displace('refcoco', 'refer/one')(root)  # Told from RefCOCO+ by its words of location.
    displace('refcocog', 'refer/refcocog')(root)
    displace('train2014', 'zips/train2014')(root)
    follow(root, 'refcoco')
    assert sorted(facts(root, 'refcoco')) == sorted(before)
    shutil.rmtree(root / 'refcoco')
    assert not bad(root, 'refcoco')  # Each can be used without the others.
    displace('train2014', 'images/train2014')(root)
    assert not bad(root, 'refcoco')


def test_pictures_in_both_folders_are_read_from_the_first(tmp_path):
    root = write_refcoco(tmp_path / 'coco')
    (root / 'images/train2014').mkdir(parents=True)
    name = 'COCO_train2014_000000000009.jpg'
    shutil.copy(root / 'train2014' / name, root / 'images/train2014' / name)
    assert not bad(root, 'refcoco')


def test_refcoco_with_only_googles_split(tmp_path):
    root = write_refcoco(tmp_path / 'coco')
    refs, note = root / 'refcoco/refs(unc).p', 'refs(google).p is another split, which is ignored.'
    for there in (True, False):
        refs.rename(refs.with_name('refs(google).p')) if there else (root / 'refcoco/refs(google).p').unlink()
        (report,) = doctor.diagnose(root)
        (mend,) = (finding.mend for finding in report.findings if finding.where == str(refs))
        assert 'Unpack refcoco.zip' in mend and (note in mend) == there


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    root = write_refcoco(tmp_path / 'coco')

    class Hostile:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / 'owned',)

    (root / 'refcoco/refs(unc).p').write_bytes(pickle.dumps([Hostile()]))
    (root / 'refcoco+/refs(unc).p').write_bytes(b'(lp0\n(dp1\n')
    found = bad(root, 'refcoco')
    assert 'asks for more than lists' in found[0] and 'refcoco+/refs(unc).p: is no pickle' in found[1]
    assert not (tmp_path / 'owned').exists()


# Records


def test_records(world_records, tmp_path, capsys):
    folder = tmp_path / 'tfds' / 'ref_youtube_vos' / '1.0.0'
    shutil.copytree(world_records, folder)
    assert doctor.main([str(tmp_path / 'tfds')]) == 0
    out = capsys.readouterr().out
    assert 'split train: 3 videos' in out
    train, evaluate = (line for line in out.splitlines() if line.startswith('run it: '))
    assert train.startswith('run it: python train.py --config=configs/ytvos.py') and 'evaluate.py' in evaluate
    assert shlex.split(train)[-1] == f"--config.data.records=('{folder}',)"
    assert shlex.split(evaluate)[-1] == f"--config.evaluation.records=('{folder}',)"
    content = json.loads((folder / 'metadata.json').read_text())
    content['videos']['valid'].pop()
    (folder / 'metadata.json').write_text(json.dumps(content))
    assert doctor.main([str(folder)]) == 1
    assert "split 'valid' has 2 records, metadata.json lists 1 videos" in capsys.readouterr().out
    next(folder.glob('*train*')).unlink()
    (report,) = doctor.diagnose(folder)
    assert [finding.level for finding in report.findings] == ['missing', 'wrong']
    (folder / 'dataset_info.json').write_text('{')
    (report,) = doctor.diagnose(folder)
    assert {(f.level, f.mend) for f in report.findings} == {('wrong', 'Build the data set again with --overwrite.')}
    (folder / 'metadata.json').unlink()
    (report,) = doctor.diagnose(folder)
    assert [(f.level, f.where) for f in report.findings] == [('missing', str(folder / 'metadata.json'))]


def test_several_data_sets_below_one_root(tmp_path):
    raw_tree.write(tmp_path / 'all' / 'youtube')
    write_davis(tmp_path / 'all' / 'davis', converted=True)
    write_a2d(tmp_path / 'all' / 'a2d_sentences')
    write_jhmdb(tmp_path / 'all' / 'jhmdb')
    write_refcoco(tmp_path / 'all' / 'coco')
    reports = doctor.diagnose(tmp_path / 'all')
    assert [(report.name, pathlib.Path(report.root).name) for report in reports] == [
        ('ref_youtube_vos', 'youtube'),
        ('ref_davis', 'davis'),
        ('a2d_sentences', 'a2d_sentences'),
        ('jhmdb_sentences', 'jhmdb'),
        ('refcoco', 'coco'),
    ]
    assert not [
        f for report in reports for f in report.findings if f.level in ('missing', 'wrong') and ', known ' not in f.what
    ]


@pytest.mark.parametrize(
    'write, converted',
    [
        (raw_tree.write, ()),
        (write_davis, (False,)),
        (write_davis, (True,)),
        (write_a2d, ()),
        (write_jhmdb, ()),
        (write_refcoco, ()),
    ],
)
def test_the_command_of_the_report_builds(tmp_path, write, converted):
    write(tmp_path / 'raw', *converted)
    (report,) = doctor.diagnose(tmp_path / 'raw')
    for command in report.commands:
        build.main(shlex.split(command.replace('data/tfds', str(tmp_path / 'tfds')))[3:])
    built = doctor.diagnose(tmp_path / 'tfds')
    assert len(built) == len(report.commands) and built[0].title == f'Records of {report.name}'
    assert all(records.name == 'records' and records.good for records in built)
    root = pathlib.Path(build.__file__).parents[1]
    for command in (command for records in built for command in records.commands):
        options = dict(word.split('=', 1) for word in shlex.split(command)[2:])
        assert (root / options['--config']).exists(), command


def test_moving_a_part_out_of_its_target_folder(tmp_path):
    target = tmp_path / "it's" / 'JPEGImages'
    source = target / 'train' / 'JPEGImages'
    source.mkdir(parents=True)
    (source / 'x').write_text('x')
    subprocess.run(places.move(source, target), shell=True, check=True)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*')] == [
        "it's",
        "it's/JPEGImages",
        "it's/JPEGImages/x",
    ]


def test_a_part_of_a_data_set_can_be_built(tmp_path, capsys):
    """With counts below the known ones a data set is incomplete, but can be built."""
    world.write_dataset(tmp_path / 'raw', num_train=2, num_valid=2, num_frames=5, size=(64, 64))
    assert doctor.main([str(tmp_path / 'raw')]) == 1
    printed = capsys.readouterr().out
    assert 'found 2, known 3,471' in printed
    assert '\nbuild this part of it: python -m datasets.build ref_youtube_vos' in printed
    (tmp_path / 'raw/meta_expressions/train/meta_expressions.json').write_text('{')
    doctor.main([str(tmp_path / 'raw')])
    assert '\nfirst fix what is missing or wrong, then build it: ' in capsys.readouterr().out
