"""Checks a copy of Ref-YouTube-VOS against the known release."""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

from sgmg_jax import files
from sgmg_jax.data.metadata import VOID, check_sentence, parse_object_id
from sgmg_jax.doctor import common
from sgmg_jax.doctor.common import Copy, Finding, counted
from sgmg_jax.doctor.places import LARGEST_LIST

EXPRESSIONS = 'meta_expressions/{}/meta_expressions.json'
CHALLENGE = 'valid/meta_expressions_challenge.json'
SOURCE = (
    'Take {} from the download page of Ref-YouTube-VOS (github.com/skynbe/Refer-Youtube-VOS links to '
    'it) and unpack it in the root.'
)
PLACES = (
    *map(EXPRESSIONS.format, ('train', 'valid', 'test')),
    CHALLENGE,
    'valid/Annotations',
    *(f'{split}/JPEGImages' for split in ('train', 'valid', 'test')),
    'train/Annotations',
)
# Videos, expressions, frames of the released files; None: not known.
COUNTS = {
    'train': (3471, 12_913, None),
    'valid and test': (507, 2096, 13_710),
    'valid': (202, 834, 5486),
    'test': (305, 1262, 8224),
}


def check(copy: Copy) -> list[Finding]:
    """Findings of a copy of Ref-YouTube-VOS."""
    findings, videos = [], {}
    challenge = CHALLENGE in copy.found and 'valid/Annotations' in copy.found
    for split in ('train', 'valid', 'test'):
        place = EXPRESSIONS.format(split)
        if place in copy.found:
            found: list[Finding] = []
            videos[split] = read_expressions(copy.found[place], split == 'train', found, split == 'test')
            if split == 'valid' and challenge:  # The builder reads the file of the challenge instead.
                found = [dataclasses.replace(finding, level='note') for finding in found]
            findings += found
        elif split != 'test':
            findings.append(
                copy.lacks(
                    place,
                    SOURCE.format('meta_expressions.zip'),
                    'note' if split == 'valid' and challenge else 'missing',
                )
            )
        else:
            findings.append(
                copy.lacks(
                    place,
                    'Without it, valid consists of the videos that have folders. The official archive has lacked it '
                    'since 2022; issue 6 of github.com/wjn922/ReferFormer has a link.',
                    'note',
                )
            )
    valid, test = videos.get('valid'), videos.get('test')
    all_valid = valid
    if valid and test and test.keys() <= valid.keys():
        count(findings, copy.found[EXPRESSIONS.format('valid')], 'valid and test', valid)
        valid = {name: video for name, video in valid.items() if name not in test}
    elif valid and test and test.keys() & valid.keys():
        findings.append(
            Finding(
                'wrong',
                'lists videos that the valid file does not list',
                str(copy.found[EXPRESSIONS.format('test')]),
                'Take both files from the same release.',
            )
        )
    elif valid and test is None and 'valid/JPEGImages' in copy.found:
        there = set(common.listing(copy.found['valid/JPEGImages'])[0])
        valid = {name: video for name, video in valid.items() if name in there}
    if challenge:
        hidden, valid = valid, read_expressions(copy.found[CHALLENGE], True, findings)
        all_valid = valid
        valid = {name: video for name, video in valid.items() if name not in (test or ())}
        findings.append(
            Finding(
                'ok',
                'the public ground truth of valid is here; it is built instead of the hidden '
                f'one of {len(hidden or ()):,} videos',
                str(copy.found[CHALLENGE]),
            )
        )
    elif CHALLENGE in copy.found:
        findings.append(
            copy.lacks('valid/Annotations', 'The ground truth of valid needs it: unpack it from the same archive.')
        )
    if all_valid and not valid:
        findings.append(
            Finding(
                'wrong',
                'lists only videos of test or without frames',
                str(copy.root / 'valid'),
                'Take all files from the same release.',
            )
        )
    for split, listed in (('train', videos.get('train')), ('valid', valid), ('test', test)):
        frames, masks = f'{split}/JPEGImages', f'{split}/Annotations'
        if listed:
            file = copy.found[CHALLENGE] if split == 'valid' and challenge else copy.found[EXPRESSIONS.format(split)]
            count(findings, file, split, listed)
        if frames not in copy.found:
            if split == 'test':
                findings.append(copy.lacks(frames, 'Only needed for the test phase of the challenge.', 'note'))
            else:
                findings.append(copy.lacks(frames, SOURCE.format(f'{split}.zip')))
        binary = split == 'valid' and challenge
        known = not binary and (split == 'train' or any(_known(video) for video in (listed or {}).values()))
        if known and masks not in copy.found:
            findings.append(copy.lacks(masks, SOURCE.format(f'{split}.zip')))
        if listed and frames in copy.found:
            truth = [copy.found[masks]] if known and masks in copy.found else None
            findings += check_split(listed, [copy.found[frames]], truth, copy.root)
            if binary:
                findings += _check_binary(listed, copy.found[masks], copy.root)
            others = {name: other for other, there in videos.items() if other != split and there for name in there}
            findings += _unlisted(listed, copy.found[frames], {} if split == 'valid' and not test else others)
    return findings


def _known(video: tuple) -> bool:
    """Whether the objects of the sentences are known."""
    return any(value > 0 for value in video[1].values())


def read_expressions(
    file: pathlib.Path, known_objects: bool, findings: list[Finding], may_be_empty: bool = False
) -> dict:
    """{video: (its frames, {expression id: object id})} of an expressions file; object ids are 0 if hidden.

    known_objects: whether every expression must have its object id. may_be_empty: whether the file may list no video,
    as that of test may. Videos whose frames or expressions cannot be read are skipped, with findings.
    """
    content = common.read(files.read_json, file, findings, LARGEST_LIST)
    if content is None:
        return {}
    videos = content.get('videos') if isinstance(content, dict) else None
    if not isinstance(videos, dict) or not (videos or may_be_empty):
        findings.append(Finding('wrong', 'field "videos" is missing or empty', str(file), common.AGAIN))
        return {}
    problems, read = common.Problems(), {}

    def wrong(what: str, example: str, mend: str = common.AGAIN):
        problems.add('wrong', what, file, mend, example)

    for name, video in videos.items():
        if not common.is_name(name):
            wrong(common.NO_NAME, ascii(name)[:80])
            continue
        frames = video.get('frames') if isinstance(video, dict) else None
        expressions = video.get('expressions') if isinstance(video, dict) else None
        if not isinstance(frames, list) or not frames or not all(map(common.is_name, frames)):
            wrong('videos whose field "frames" is no list of names', name)
            continue
        if len(set(frames)) < len(frames):
            wrong('videos whose field "frames" names a frame twice', name)
        if not isinstance(expressions, dict) or not expressions:
            wrong('videos whose field "expressions" is missing or empty', name)
            continue
        objects = {}
        for key, expression in expressions.items():
            where = files.printable(f'video {name}, expression {key}')
            if not key.isdecimal():
                wrong('expressions whose id is no whole number', where)
            text = expression.get('exp') if isinstance(expression, dict) else None
            if not is_sentence(text):
                wrong(
                    'expressions whose field "exp" is missing or empty',
                    where,
                    'Write a sentence, or remove the expression.',
                )
                continue
            value = expression.get('obj_id', 0)
            objects[key] = parse_object_id(value) or 0
            if not objects[key] and (known_objects or 'obj_id' in expression):
                wrong(
                    f'expressions whose field "obj_id" is no whole number from 1 to {VOID - 1}',
                    f'{where}: {value!a:.80}',
                )
        read[name] = tuple(sorted(frames)), objects
    findings += problems.findings()
    return read


def check_split(
    videos: dict, frames: list[pathlib.Path], masks: list[pathlib.Path] | None, root: pathlib.Path
) -> list[Finding]:
    """Checks the frames and the palette masks of the videos of `read_expressions`."""
    found = common.check_frames({name: names for name, (names, _) in videos.items()}, frames, masks, root)
    if not any(finding.level in ('missing', 'wrong') for finding in found):
        what = 'frames and masks' if masks else 'frames'
        where = next((folder for folder in frames if folder.is_dir()), frames[0])
        found.append(
            Finding(
                'ok',
                f'all {sum(len(names) for names, _ in videos.values()):,} {what} of {len(videos):,} videos are there',
                str(where),
            )
        )
    return found


def is_sentence(text: Any) -> bool:
    """Whether the builder accepts the value as a sentence."""
    try:
        return bool(check_sentence(text, ''))
    except ValueError:
        return False


def _check_binary(videos: dict, masks: pathlib.Path, root: pathlib.Path) -> list[Finding]:
    """Checks the public ground truth of valid, one folder per expression."""
    flat = [name for name in videos if any(file.lower().endswith('.png') for file in common.listing(masks / name)[1])]
    if flat:
        return [
            Finding(
                'wrong',
                f'holds index masks ({common.some(flat)}) where the ground truth has one folder an expression',
                str(masks),
                'These are of YouTube-VOS, not of Ref-YouTube-VOS. Take those of '
                'the archive that holds meta_expressions_challenge.json.',
            )
        ]
    expressions = {f'{name}/{key}': frames for name, (frames, objects) in videos.items() for key in objects}
    return common.check_frames(expressions, [masks], None, root, 'PNG') or [
        Finding('ok', f'the masks of all {len(expressions):,} expressions are there', str(masks))
    ]


def _unlisted(listed: dict, folder: pathlib.Path, others: dict[str, str]) -> list[Finding]:
    """Notes on folders of videos that their split does not list, especially of videos that another split lists."""
    extra = sorted(set(common.listing(folder)[0]) - set(listed))
    findings = []
    for split in sorted({others[name] for name in extra if name in others}):
        names = [name for name in extra if others.get(name) == split]
        findings.append(
            Finding(
                'note',
                f'{len(names):,} folders of videos of {split} ({common.some(names)}), which are not used here',
                str(folder),
                f'They belong in {split}/JPEGImages.',
            )
        )
    rest = [name for name in extra if name not in others]
    if rest:
        findings.append(
            Finding(
                'note',
                f'{len(rest):,} folders that no expressions file lists ({common.some(rest)}), which are not used',
                str(folder),
            )
        )
    return findings


def count(
    findings: list[Finding],
    file: pathlib.Path,
    split: str,
    videos: dict,
    known: Sequence[int | None] | None = None,
    about: bool = False,
) -> None:
    """Adds how many videos, expressions and frames `read_expressions` found, beside the known numbers (default: COUNTS
    of the split; None: not known). about: the known number of expressions is approximate."""
    known = known or COUNTS[split]
    numbers = (
        len(videos),
        sum(len(objects) for _, objects in videos.values()),
        sum(len(frames) for frames, _ in videos.values()),
    )
    for unit, found, wanted in zip(('videos', 'expressions', 'frames listed'), numbers, known):
        if wanted is not None or split == 'train' and unit != 'videos':
            findings.append(counted(f'{split}: {unit}', file, found, wanted, about and unit == 'expressions'))
