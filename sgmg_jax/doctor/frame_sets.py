"""Checks copies of A2D-Sentences, JHMDB-Sentences and RefCOCO/+/g against the known releases."""

import csv
import os
import pathlib
import re

from sgmg_jax import files, pictures
from sgmg_jax.doctor import common
from sgmg_jax.doctor.common import Copy, Finding, counted
from sgmg_jax.doctor.places import LARGEST_LIST, REFCOCO
from sgmg_jax.raw import refcoco
from sgmg_jax.raw.jhmdb import METADATA as JHMDB_SAMPLES

CLIPS = ('Release/CLIPS320', 'Release/clips320H')
INSTANCES = 'text_annotations/a2d_annotation_with_instances'
A2D_PLACES = (
    'Release/videoset.csv',
    *CLIPS,
    'text_annotations/a2d_annotation.txt',
    'text_annotations/a2d_missed_videos.txt',
    INSTANCES,
)
A2D_SOURCE = 'Unpack the archive of A2D (Xu et al., University of Michigan) in the root.'
A2D_TEXT_SOURCE = 'Unpack the text annotations of A2D-Sentences (Gavrilyuk et al., 2018) in the root.'
JHMDB_PLACES = ('Rename_Images', 'puppet_mask', JHMDB_SAMPLES, 'jhmdb_annotation.txt')
JHMDB_SOURCES = {
    'Rename_Images': 'Unpack Rename_Images.tar.gz of JHMDB (jhmdb.is.tue.mpg.de) in the root.',
    'puppet_mask': 'Unpack puppet_mask.zip of JHMDB (jhmdb.is.tue.mpg.de) in the root.',
    JHMDB_SAMPLES: 'Take it from the release of MTTR (github.com/mttr2021/MTTR); other releases sample other frames.',
}
REFCOCO_PLACES = ('train2014', 'images/train2014', *REFCOCO)
REFCOCO_SPLITS = refcoco.REPORTED  # from memory for RefCOCO+ and RefCOCOg


def check_a2d(copy: Copy) -> list[Finding]:
    """Findings of a copy of A2D-Sentences."""
    findings = []
    for place in (
        'Release/videoset.csv',
        'text_annotations/a2d_annotation.txt',
        'text_annotations/a2d_missed_videos.txt',
        INSTANCES,
    ):
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
        missed = (common.read(files.read_text, file, findings) or '').split()
        findings.append(counted('videos that are left out', file, len(missed), 28))
    if sentences and missed and (both := sorted(sentences & set(missed))):
        findings.append(
            Finding(
                'wrong',
                f'{len(both)} videos with sentences are also left out ({common.some(both)})',
                str(copy.found['text_annotations/a2d_missed_videos.txt']),
                common.AGAIN,
            )
        )
    if sentences and subsets:
        strange = sorted(sentences - set(subsets))
        if strange:
            findings.append(
                Finding(
                    'wrong',
                    f'{len(strange)} videos with sentences are not in it ({common.some(strange)})',
                    str(copy.found['Release/videoset.csv']),
                    'Take the file of the release.',
                )
            )
        used = [subset for video, subset in subsets.items() if video in sentences]
        findings += [
            counted(
                f'{split}: videos with sentences',
                copy.found['Release/videoset.csv'],
                used.count(value),
                known,
                about=True,
            )
            for split, value, known in (('train', '0', 3017), ('test', '1', 737))
        ]
    if sentences is not None:
        videos = sorted(sentences)
    else:
        videos = sorted(set(subsets or ()) - set(missed or ()))
    if clips and videos:
        findings += _check_clips(clips, videos, copy.root)
    if INSTANCES in copy.found and videos:
        findings += _check_instances(copy.found[INSTANCES], videos, copy.root)
    return findings


def _read_videoset(file: pathlib.Path, findings: list[Finding]) -> dict[str, str]:
    """{video: '0' for train, '1' for test}."""
    problems, subsets = common.Problems(), {}
    text = common.read(files.read_text, file, findings) or ''
    for number, line in enumerate(text.rstrip('\n').split('\n'), 1):
        try:
            row = next(csv.reader([line]), [])
        except csv.Error:  # A field has more than 131,072 characters.
            row = []
        example = f'line {number}: {line[:60]!a}'
        if len(row) != 9 or row[8].strip() not in ('0', '1'):
            problems.add(
                'wrong',
                'lines that are not nine columns of which the last is 0 (train) or 1 (test)',
                file,
                'Take the file of the release; it has no header.',
                example,
            )
        elif not common.is_name(row[0]):
            problems.add('wrong', common.NO_NAME, file, common.AGAIN, example)
        else:
            subsets[row[0]] = row[8].strip()
    findings += problems.findings()
    return subsets


def _read_sentences(file: pathlib.Path, findings: list[Finding]) -> set[str]:
    """The videos that have sentences."""
    problems, videos, rows = common.Problems(), set(), 0
    text = common.read(files.read_text, file, findings) or ''
    for number, line in enumerate(text.rstrip('\n').split('\n')[1:], 2):
        if not line.strip():
            continue
        rows += 1
        columns = line.split(',', 2)
        example = f'line {number}: {line[:60]!r}'
        if len(columns) != 3:
            problems.add('wrong', 'lines that are not: video_id,instance_id,query', file, common.AGAIN, example)
            continue
        if not common.is_name(columns[0]):
            problems.add('wrong', common.NO_NAME, file, common.AGAIN, example)
            continue
        videos.add(columns[0])
        if columns[1] == '1 (copy)':
            problems.add('note', 'instances "1 (copy)", which the builder ignores', file, '', example)
        elif not columns[1].isdecimal():
            problems.add('wrong', 'lines whose instance_id is no whole number', file, common.AGAIN, example)
        if not columns[2].strip():
            problems.add('wrong', 'empty sentences', file, common.AGAIN, example)
    findings += [
        *problems.findings(),
        counted('sentences', file, rows, 6655),
        counted('videos with sentences', file, len(videos), 3754),
    ]
    return videos


def _check_clips(folder: pathlib.Path, videos: list[str], root: pathlib.Path) -> list[Finding]:
    problems = common.Problems()
    good = common.check_files(common.faults(folder, root) or {}, videos, ('.mp4',), problems, folder)
    for name in common.progress(good, f'looking at {folder}'):
        if not common.begins_with(folder / name, b'ftyp', b'moov', b'mdat', b'free', b'wide', at=4):
            problems.add('wrong', 'broken videos (no mp4 header)', folder, common.AGAIN, name)
    return problems.findings() or [Finding('ok', f'all {len(videos):,} videos with sentences are there', str(folder))]


def _check_instances(folder: pathlib.Path, videos: list[str], root: pathlib.Path) -> list[Finding]:
    problems, count = common.Problems(), 0
    for video in common.progress(videos, f'looking at {folder}'):
        there = common.faults(folder / video, root) or {}
        stems = sorted({os.path.splitext(name)[0] for name in there if name.lower().endswith('.h5')})
        if not stems:
            problems.add('missing', 'videos with sentences and without a mask (.h5)', folder, common.AGAIN, video)
        count += len(stems)
        for name in common.check_files(there, stems, ('.h5',), problems, folder, f'{video}/'):
            if not re.fullmatch(r'[0-9]{5}\.h5', name, re.IGNORECASE):
                problems.add(
                    'wrong',
                    'files whose name is no frame number of five digits',
                    folder,
                    common.AGAIN,
                    f'{video}/{name}',
                )
            elif name.startswith(stems[0]) and not common.begins_with(folder / video / name, b'\x89HDF\r\n\x1a\n'):
                problems.add('wrong', 'broken files of masks (no HDF5 header)', folder, common.AGAIN, f'{video}/{name}')
    return problems.findings() or [
        Finding('ok', f'all {len(videos):,} videos have masks, in {count:,} frames', str(folder))
    ]


def check_jhmdb(copy: Copy) -> list[Finding]:
    """Findings of a copy of JHMDB-Sentences."""
    findings = [copy.lacks(place, source) for place, source in JHMDB_SOURCES.items() if place not in copy.found]
    if file := copy.first('jhmdb_annotation.txt'):
        # It is not needed, so a file that cannot be read is not a fault.
        lines = (common.read(files.read_text, file, []) or '').rstrip('\n').split('\n')
        findings.append(counted('sentences', file, len(lines) - 1, 928, about=True))
    else:
        findings.append(
            copy.lacks('jhmdb_annotation.txt', 'It is not needed: the sample list has the sentences.', 'note')
        )
    if JHMDB_SAMPLES not in copy.found:
        return findings
    videos = _read_samples(copy.found[JHMDB_SAMPLES], findings)
    if videos and (folder := copy.first('Rename_Images')):
        frames = {name: [f'{number:05d}' for number in range(1, total + 1)] for name, total in videos.items()}
        findings += common.check_frames(frames, [folder], None, copy.root, pictures.PNG) or [
            Finding(
                'ok', f'all {sum(map(len, frames.values())):,} frames of {len(frames):,} videos are there', str(folder)
            )
        ]
    if videos and (folder := copy.first('puppet_mask')):
        findings += _check_puppet_masks(folder, list(videos), copy.root)
    return findings


def _read_samples(file: pathlib.Path, findings: list[Finding]) -> dict[str, int]:
    """{'<action>/<video>': number of its frames}."""
    rows = common.read(files.read_json, file, findings, LARGEST_LIST)
    problems, videos = common.Problems(), {}
    if rows is not None and not isinstance(rows, list):
        findings.append(Finding('wrong', 'must be a list of samples', str(file), JHMDB_SOURCES[JHMDB_SAMPLES]))
        return {}
    for number, row in enumerate(rows or ()):
        path = (
            re.search(r'Rename_Images/([^/]+/[^/]+)/([0-9]{5})\.png$', str(row[1]))
            if isinstance(row, list) and len(row) == 5
            else None
        )
        if not path or type(row[3]) is not int or 'puppet_mask/' not in str(row[2]) or not 0 < row[3] < 100_000:
            problems.add(
                'wrong',
                'entries that are not: video, path of a frame below Rename_Images/, path of a mask '
                'below puppet_mask/, number of frames, sentence',
                file,
                JHMDB_SOURCES[JHMDB_SAMPLES],
                f'entry {number}',
            )
            continue
        video, frame = path[1], int(path[2])
        if not all(map(common.is_name, video.split('/'))):
            problems.add('wrong', common.NO_NAME, file, JHMDB_SOURCES[JHMDB_SAMPLES], f'entry {number}')
            continue
        if not str(row[4]).strip():
            problems.add('wrong', 'empty sentences', file, JHMDB_SOURCES[JHMDB_SAMPLES], f'entry {number}')
        if not 1 <= frame <= row[3]:
            problems.add(
                'wrong',
                'sampled frames beyond the end of their video',
                file,
                JHMDB_SOURCES[JHMDB_SAMPLES],
                f'{video}, frame {frame} of {row[3]}',
            )
        videos[video] = row[3]
    findings += problems.findings()
    if rows is not None:
        findings += [counted('samples', file, len(rows), 2784), counted('videos', file, len(videos), 928)]
    return videos


def _check_puppet_masks(folder: pathlib.Path, videos: list[str], root: pathlib.Path) -> list[Finding]:
    problems = common.Problems()
    for video in common.progress(videos, f'looking at {folder}'):
        there = common.faults(folder / video, root) or {}
        for name in common.check_files(there, ['puppet_mask'], ('.mat',), problems, folder, f'{video}/'):
            if not common.begins_with(folder / video / name, b'MATLAB'):
                problems.add(
                    'wrong', 'broken files of masks (no MATLAB header)', folder, common.AGAIN, f'{video}/{name}'
                )
    return problems.findings() or [Finding('ok', f'the masks of all {len(videos):,} videos are there', str(folder))]


def check_refcoco(copy: Copy) -> list[Finding]:
    """Findings of a copy of RefCOCO, RefCOCO+ and RefCOCOg; one of them is enough."""
    findings: list[Finding] = []
    wanted: set[str] = set()
    there = [name for name in REFCOCO if name in copy.found]
    for name in REFCOCO:
        if name in there:
            wanted |= _read_refcoco(copy.found[name], name, findings)
        else:
            findings.append(
                copy.lacks(
                    name,
                    f'Unpack {name}.zip (github.com/lichengunc/refer) in the root, if you want {name}.',
                    'note' if there else 'missing',
                )
            )
    folder = copy.first('train2014', 'images/train2014')
    if folder is None:
        findings.append(copy.lacks('train2014', 'Unpack train2014.zip of COCO (cocodataset.org) in the root.'))
        return findings
    problems = common.Problems()
    found = common.faults(folder, copy.root) or {}
    findings.append(counted('pictures', folder, len(found), 82_783, about=True))
    good = common.check_files(found, sorted(wanted), ('.jpg', '.jpeg'), problems, folder)
    for name in good[:1] + good[-1:]:
        try:
            pictures.read_header(folder / name, (pictures.JPEG,))
        except (OSError, ValueError) as error:
            problems.add('wrong', f'broken images ({common.reason(error, folder / name)})', folder, common.AGAIN, name)
    if not problems.findings() and wanted:
        findings.append(Finding('ok', f'all {len(wanted):,} pictures with sentences are there', str(folder)))
    return findings + problems.findings()


def _read_refcoco(folder: pathlib.Path, name: str, findings: list[Finding]) -> set[str]:
    """Names (without ending) of the pictures that a data set's sentences refer to."""
    if folder.name != name:
        return set()  # It must be moved before it can be read.
    refs = folder / refcoco.REFS[name]
    converted = [folder / f'instances_{name}_{split}.json' for split in REFCOCO_SPLITS[name]]
    whole = refs.exists() and (folder / 'instances.json').exists()
    if not whole and not any(file.exists() for file in converted):
        absent = next(file for file in (refs, folder / 'instances.json') if not file.exists())
        google = ' refs(google).p is another split, which is ignored.' if (folder / 'refs(google).p').exists() else ''
        findings.append(
            Finding(
                'missing',
                'is not there',
                str(absent),
                f'Unpack {name}.zip (github.com/lichengunc/refer) in the root.{google}',
            )
        )
        return set()
    if not whole:
        findings += [
            Finding('missing', 'is not there', str(file), f'Convert it too, or take {refs.name} and instances.json.')
            for file in converted
            if not file.exists()
        ]
    with common.warnings() as said:
        splits = (
            common.read(
                lambda _: refcoco.read_splits(folder.parent, name, refs.name, tuple(REFCOCO_SPLITS[name])),
                refs if whole else folder,
                findings,
            )
            or {}
        )
    findings += [Finding('note', text, str(folder)) for text in said]
    findings += [
        counted(
            f'{name} {split}: sentences',
            refs if whole else folder,
            sum(len(picture.sentences) for picture in splits[split]),
            known,
            name != 'refcoco',
        )
        for split, known in REFCOCO_SPLITS[name].items()
        if split in splits
    ]
    return {picture.name for of_split in splits.values() for picture in of_split}
