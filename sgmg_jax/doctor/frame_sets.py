"""What whole copies of A2D-Sentences, JHMDB-Sentences and RefCOCO/+/g look like, and what differs in somebody's."""
import csv
import io
import pathlib
import re

import av
import h5py
import numpy as np
import scipy.io

from sgmg_jax import plain_pickle
from sgmg_jax.doctor import common
from sgmg_jax.doctor.common import Copy, Finding, counted
from sgmg_jax.doctor.places import REFCOCO

CLIPS = ('Release/CLIPS320', 'Release/clips320H')
INSTANCES = 'text_annotations/a2d_annotation_with_instances'
A2D_PLACES = ('Release/videoset.csv', *CLIPS, 'text_annotations/a2d_annotation.txt',
              'text_annotations/a2d_missed_videos.txt', INSTANCES)
A2D_SOURCE = 'Unpack the archive of A2D (Xu et al., University of Michigan) in the root.'
A2D_TEXT_SOURCE = 'Unpack the text annotations of A2D-Sentences (Gavrilyuk et al., 2018) in the root.'
JHMDB_SAMPLES = 'jhmdb_sentences_samples_metadata.json'
JHMDB_PLACES = ('Rename_Images', 'puppet_mask', JHMDB_SAMPLES, 'jhmdb_annotation.txt')
JHMDB_SOURCES = {'Rename_Images': 'Unpack Rename_Images.tar.gz of JHMDB (jhmdb.is.tue.mpg.de) in the root.',
                 'puppet_mask': 'Unpack puppet_mask.zip of JHMDB (jhmdb.is.tue.mpg.de) in the root.',
                 JHMDB_SAMPLES: 'Take it from the release of MTTR (github.com/mttr2021/MTTR); other releases sample '
                                'other frames.'}
REFCOCO_PLACES = ('train2014', 'images/train2014', *REFCOCO)
REFCOCO_SPLITS = {'refcoco': {'train': 120_624, 'val': 10_834, 'testA': 5657, 'testB': 5095},
                  'refcoco+': {'train': 120_191, 'val': 10_758, 'testA': 5726, 'testB': 4889},  # Recalled.
                  'refcocog': {'train': 80_512, 'val': 4896, 'test': 9602}}  # Recalled.


def check_a2d(copy: Copy, pixels: bool) -> list[Finding]:
    """Findings of a copy of A2D-Sentences."""
    findings = []
    for place in ('Release/videoset.csv', 'text_annotations/a2d_annotation.txt',
                  'text_annotations/a2d_missed_videos.txt', INSTANCES):
        if place not in copy.found:
            findings.append(copy.lacks(place, A2D_SOURCE if place.startswith('Release') else A2D_TEXT_SOURCE))
    clips = copy.first(*CLIPS)
    if clips is None:
        findings.append(copy.lacks(' or '.join(CLIPS), A2D_SOURCE))
    subsets = sentences = missed = None
    if file := copy.first('Release/videoset.csv'):
        subsets = _read_videoset(file, findings)
        findings.append(counted('videos', file, len(subsets), 3782))
    if file := copy.first('text_annotations/a2d_annotation.txt'):
        sentences = _read_sentences(file, findings)
    if file := copy.first('text_annotations/a2d_missed_videos.txt'):
        missed = file.read_text(encoding='utf-8').split()
        findings.append(counted('videos that are left out', file, len(missed), 28))
    if sentences and missed and (both := sorted(sentences & set(missed))):
        findings.append(Finding('wrong', f'{len(both)} videos with sentences are also left out ({common.some(both)})',
                                str(copy.found['text_annotations/a2d_missed_videos.txt']), common.AGAIN))
    if sentences and subsets:
        strange = sorted(sentences - set(subsets))
        if strange:
            findings.append(Finding('wrong', f'{len(strange)} videos with sentences are not in it '
                                    f'({common.some(strange)})', str(copy.found['Release/videoset.csv']),
                                    'Take the file of the release.'))
        used = [subset for video, subset in subsets.items() if video in sentences]
        findings += [counted(f'{split}: videos with sentences', copy.found['Release/videoset.csv'], used.count(value),
                             known, about=True) for split, value, known in (('train', '0', 3017), ('test', '1', 737))]
    if sentences is not None:
        videos = sorted(sentences)
    else:
        videos = sorted(set(subsets or ()) - set(missed or ()))
    if clips and videos:
        findings += _check_clips(clips, videos, pixels)
    if INSTANCES in copy.found and videos:
        findings += _check_instances(copy.found[INSTANCES], videos, pixels)
    return findings


def _read_videoset(file: pathlib.Path, findings: list[Finding]) -> dict[str, str]:
    """{video: '0' for train, '1' for test}."""
    problems, subsets = common.Problems(), {}
    for number, row in enumerate(csv.reader(io.StringIO(file.read_text(encoding='utf-8'))), 1):
        if len(row) != 9 or row[8].strip() not in ('0', '1'):
            problems.add('wrong', 'lines that are not nine columns of which the last is 0 (train) or 1 (test)', file,
                         'Take the file of the release; it has no header.', f'line {number}: {",".join(row)[:60]!r}')
        else:
            subsets[row[0]] = row[8].strip()
    findings += problems.findings()
    return subsets


def _read_sentences(file: pathlib.Path, findings: list[Finding]) -> set[str]:
    """The videos that have sentences."""
    problems, videos, rows = common.Problems(), set(), 0
    for number, line in enumerate(file.read_text(encoding='utf-8').splitlines()[1:], 2):
        rows += 1
        columns = line.split(',', 2)
        example = f'line {number}: {line[:60]!r}'
        if len(columns) != 3:
            problems.add('wrong', 'lines that are not: video_id,instance_id,query', file, common.AGAIN, example)
            continue
        videos.add(columns[0])
        if columns[1] == '1 (copy)':
            problems.add('note', 'instances "1 (copy)", which the benchmark leaves out', file, '', example)
        elif not columns[1].isdecimal():
            problems.add('wrong', 'lines whose instance_id is no whole number', file, common.AGAIN, example)
        if not columns[2].strip():
            problems.add('wrong', 'empty sentences', file, common.AGAIN, example)
    findings += [*problems.findings(), counted('sentences', file, rows, 6655),
                 counted('videos with sentences', file, len(videos), 3754)]
    return videos


def _check_clips(folder: pathlib.Path, videos: list[str], pixels: bool) -> list[Finding]:
    problems = common.Problems()
    sizes = common.file_sizes(folder) or {}
    good = common.check_files(sizes, [f'{video}.mp4' for video in videos], problems, folder)
    for name in common.progress(good, f'looking at {folder}'):
        try:
            if pixels:
                with av.open(str(folder / name)) as container:
                    if not sum(1 for _ in container.decode(video=0)):
                        raise ValueError('no frame in it')
            else:
                with open(folder / name, 'rb') as stream:
                    if stream.read(12)[4:8] not in (b'ftyp', b'moov', b'mdat', b'free', b'wide'):
                        raise ValueError('no mp4 header')
        except (OSError, ValueError, IndexError, av.FFmpegError) as error:
            problems.add('wrong', f'broken videos ({getattr(error, "strerror", None) or error})', folder,
                         common.AGAIN, name)
    return problems.findings() or [Finding('ok', f'all {len(videos):,} videos with sentences are there', str(folder))]


def _check_instances(folder: pathlib.Path, videos: list[str], pixels: bool) -> list[Finding]:
    problems, files, read = common.Problems(), 0, False
    for video in common.progress(videos, f'looking at {folder}'):
        sizes = common.file_sizes(folder / video)
        names = sorted(name for name in sizes or () if name.endswith('.h5'))
        if not names:
            problems.add('missing', 'videos with sentences and without a mask (.h5)', folder, common.AGAIN, video)
        files += len(names)
        for name in common.check_files(sizes or {}, names, problems, folder, f'{video}/'):
            try:
                if not re.fullmatch(r'\d{5}\.h5', name):
                    problems.add('wrong', 'files whose name is no frame number of five digits', folder, common.AGAIN,
                                 f'{video}/{name}')
                elif pixels or not read:  # One shows whether the fields are those of the release.
                    _read_instances(folder / video / name)
                    read = True
                elif name == names[0] and not h5py.is_hdf5(folder / video / name):
                    raise ValueError('no HDF5 header')
            except (OSError, ValueError) as error:
                problems.add('wrong', f'broken files of masks ({error})', folder, common.AGAIN, f'{video}/{name}')
    return problems.findings() or [Finding('ok', f'all {len(videos):,} videos have masks, in {files:,} frames',
                                           str(folder))]


def _read_instances(file: pathlib.Path):
    with h5py.File(file) as content:
        for field in ('instance', 'reMask'):
            if field not in content:
                raise ValueError(f'field {field!r} is missing')
        count, shape = np.size(content['instance'][()]), content['reMask'][()].shape
        if (shape[0] if len(shape) == 3 else 1) != count:
            raise ValueError(f'{count} instances, but reMask has the shape {shape}')


def check_jhmdb(copy: Copy, pixels: bool) -> list[Finding]:
    """Findings of a copy of JHMDB-Sentences."""
    findings = [copy.lacks(place, source) for place, source in JHMDB_SOURCES.items() if place not in copy.found]
    if file := copy.first('jhmdb_annotation.txt'):
        findings.append(counted('sentences', file, len(file.read_text(encoding='utf-8').splitlines()) - 1, 928))
    else:
        findings.append(copy.lacks('jhmdb_annotation.txt', 'It is not needed: the sample list has the sentences.',
                                    'note'))
    if JHMDB_SAMPLES not in copy.found:
        return findings
    videos = _read_samples(copy.found[JHMDB_SAMPLES], findings)
    if videos and (folder := copy.first('Rename_Images')):
        frames = {name: [f'{number:05d}' for number in range(1, total + 1)] for name, (total, _) in videos.items()}
        findings += common.check_frames(frames, folder, None, pixels, '.png') or [
            Finding('ok', f'all {sum(map(len, frames.values())):,} frames of {len(frames):,} videos are there',
                    str(folder))]
    if videos and (folder := copy.first('puppet_mask')):
        findings += _check_puppet_masks(folder, videos, pixels)
    return findings


def _read_samples(file: pathlib.Path, findings: list[Finding]) -> dict[str, tuple[int, int]]:
    """{'<action>/<video>': (frames of it, its last sampled frame)}."""
    rows = common.read_json(file, findings)
    problems, videos = common.Problems(), {}
    for number, row in enumerate(rows if isinstance(rows, list) else ()):
        path = re.search(r'Rename_Images/([^/]+/[^/]+)/(\d{5})\.png$', str(row[1])) \
            if isinstance(row, list) and len(row) == 5 else None
        if not path or not isinstance(row[3], int) or 'puppet_mask/' not in str(row[2]):
            problems.add('wrong', 'entries that are not: video, path of a frame below Rename_Images/, path of a mask '
                         'below puppet_mask/, number of frames, sentence', file, JHMDB_SOURCES[JHMDB_SAMPLES],
                         f'entry {number}')
            continue
        video, frame = path[1], int(path[2])
        if not str(row[4]).strip():
            problems.add('wrong', 'empty sentences', file, JHMDB_SOURCES[JHMDB_SAMPLES], f'entry {number}')
        if not 1 <= frame <= row[3]:
            problems.add('wrong', 'sampled frames after the end of their video', file, JHMDB_SOURCES[JHMDB_SAMPLES],
                         f'{video}, frame {frame} of {row[3]}')
        videos[video] = row[3], max(frame, videos.get(video, (0, 0))[1])
    findings += problems.findings()
    if rows is not None:
        findings += [counted('samples', file, len(rows), 2784), counted('videos', file, len(videos), 928)]
    return videos


def _check_puppet_masks(folder: pathlib.Path, videos: dict[str, tuple[int, int]], pixels: bool) -> list[Finding]:
    problems = common.Problems()
    for number, (video, (_, last)) in enumerate(common.progress(videos.items(), f'looking at {folder}')):
        file = folder / video / 'puppet_mask.mat'
        sizes = common.file_sizes(file.parent)
        if not common.check_files(sizes or {}, [file.name], problems, folder, f'{video}/'):
            continue
        try:
            if pixels or number == 0:
                masks = scipy.io.loadmat(file).get('part_mask')
                if masks is None or masks.ndim != 3:
                    raise ValueError("no field 'part_mask' of three axes")
                if masks.shape[2] < last:
                    problems.add('wrong', 'videos with a sampled frame after the end of their masks', folder,
                                 'Take all parts of one release.', f'{video}: {last} of {masks.shape[2]}')
            else:
                with open(file, 'rb') as stream:
                    if not stream.read(6) == b'MATLAB':
                        raise ValueError('no MATLAB header')
        except Exception as error:  # scipy raises whatever the damage leads to.
            problems.add('wrong', f'broken files of masks ({error})', folder, common.AGAIN, f'{video}/{file.name}')
    return problems.findings() or [Finding('ok', f'the masks of all {len(videos):,} videos are there', str(folder))]


def check_refcoco(copy: Copy, pixels: bool) -> list[Finding]:
    """Findings of a copy of RefCOCO, RefCOCO+ and RefCOCOg, of which one is enough."""
    findings, wanted = [], set()
    there = [name for name in REFCOCO if name in copy.found]
    for name in REFCOCO:
        if name in there:
            wanted |= _read_refcoco(copy.found[name], name, findings)
        else:
            findings.append(copy.lacks(name, f'Unpack {name}.zip (github.com/lichengunc/refer) in the root, if you '
                                       f'want {name}.', 'note' if there else 'missing'))
    folder = copy.first('train2014', 'images/train2014')
    if folder is None:
        findings.append(copy.lacks('train2014', 'Unpack train2014.zip of COCO (cocodataset.org) in the root.'))
        return findings
    problems = common.Problems()
    sizes = common.file_sizes(folder) or {}
    findings.append(counted('pictures', folder, len(sizes), 82_783, about=True))
    good = common.check_files(sizes, sorted(wanted), problems, folder)
    for name in common.progress(good if pixels else good[:1] + good[-1:], f'looking at {folder}', 'picture'):
        try:
            common.open_image(folder / name, pixels)
        except (OSError, SyntaxError) as error:
            problems.add('wrong', f'broken images ({error})', folder, common.AGAIN, name)
    if not problems.findings() and wanted:
        findings.append(Finding('ok', f'all {len(wanted):,} pictures with sentences are there', str(folder)))
    return findings + problems.findings()


def _read_refcoco(folder: pathlib.Path, name: str, findings: list[Finding]) -> set[str]:
    """The files of the pictures that the sentences of a data set are about."""
    refs = folder / ('refs(umd).p' if name == 'refcocog' else 'refs(unc).p')
    converted = {split: folder / f'instances_{name}_{split}.json' for split in REFCOCO_SPLITS[name]}
    about = name != 'refcoco'
    if refs.exists():
        counts, pictures = _read_refs(refs, folder / 'instances.json', findings)
        where = refs
    elif any(file.exists() for file in converted.values()):
        counts, pictures, where = {}, set(), folder
        for split, file in converted.items():
            if not file.exists():
                findings.append(Finding('missing', 'is not there', str(file), 'Convert it too, or take '
                                        f'{refs.name} and instances.json.'))
            elif content := common.read_json(file, findings):
                images = content.get('images') if isinstance(content, dict) else None
                if not images or any('caption' not in image or 'file_name' not in image for image in images):
                    findings.append(Finding('wrong', 'field "images" has no file_name and caption', str(file),
                                            'It is no converted file of sentences. Convert it again.'))
                    continue
                counts[split] = len(images)
                pictures |= {image['file_name'] for image in images}
                _empty_sentences([image['caption'] for image in images], file, findings)
    else:
        google = ' refs(google).p is another split, which is not used.' if (folder / 'refs(google).p').exists() else ''
        findings.append(Finding('missing', 'is not there', str(refs),
                                f'Unpack {name}.zip (github.com/lichengunc/refer) in the root.{google}'))
        return set()
    findings += [counted(f'{name} {split}: sentences', where, counts[split], known, about)
                 for split, known in REFCOCO_SPLITS[name].items() if split in counts]
    return pictures


def _read_refs(refs: pathlib.Path, instances: pathlib.Path, findings: list[Finding]) -> tuple[dict[str, int], set[str]]:
    """Sentences of each split, and the files of the pictures."""
    try:
        content = plain_pickle.read(refs)
        counts, ids, objects = {}, set(), set()
        for ref in content:
            split = {'A': 'testA', 'B': 'testB'}.get(ref['split'][-1], ref['split'])
            counts[split] = counts.get(split, 0) + len(ref['sentences'])
            ids.add(ref['image_id'])
            objects.add((ref['image_id'], ref['ann_id']))
        _empty_sentences([sentence['sent'] for ref in content for sentence in ref['sentences']], refs, findings)
    except Exception as error:  # A damaged pickle fails in any way.
        findings.append(Finding('wrong', f'cannot be read ({type(error).__name__}: {error})', str(refs), common.AGAIN))
        return {}, set()
    if not instances.exists():
        findings.append(Finding('missing', 'is not there', str(instances), 'It is in the same archive as '
                                f'{refs.name}.'))
        return counts, set()
    content = common.read_json(instances, findings)
    try:
        files = {image['id']: image['file_name'] for image in content['images']} if content else {}
        unknown = objects - {(annotation['image_id'], annotation['id'])
                             for annotation in content['annotations']} if content else set()
    except (KeyError, TypeError) as error:
        findings.append(Finding('wrong', f'field {error} is missing', str(instances), common.AGAIN))
        return counts, set()
    if content and (ids - set(files) or unknown):
        findings.append(Finding('wrong', f'lacks {len(ids - set(files)):,} pictures and {len(unknown):,} objects of '
                                f'{refs.name}', str(instances), 'Take both files from one archive.'))
    return counts, {files[number] for number in ids if number in files}


def _empty_sentences(sentences: list[str], file: pathlib.Path, findings: list[Finding]):
    empty = sum(not sentence.strip() for sentence in sentences)
    if empty:
        findings.append(Finding('wrong', f'{empty:,} sentences are empty', str(file), common.AGAIN))
