"""Checks a copy of MeViS against the known releases of both editions."""

import hashlib
import os
import pathlib

from sgmg_jax import files
from sgmg_jax.doctor import common
from sgmg_jax.doctor.common import Copy, Finding, counted
from sgmg_jax.raw import mask_dict
from sgmg_jax.raw import mevis as raw

SOURCE = 'Download it as https://github.com/henghuiding/MeViS shows.'
PLACES = tuple(
    f'{split}/{name}'
    for split in raw.SPLITS
    for name in (raw.FRAMES, raw.ARCHIVE, *raw.LISTS, *([] if split in raw.HIDDEN else [raw.MASKS]))
)
# Videos and sentences of the first and of the second edition.
COUNTS = {
    'train': ((1662, 23_051), (1662, 27_502)),
    'valid_u': ((50, 793), (50, 907)),
    'valid': ((140, 2236), (140, 2523)),
}
# SHA256 of mask_dict.json of the first edition; its repository gives them.
SHA256 = {
    'train': 'f9d9b01a2a6d7a004e2e7a664ce2b9b1576218e975030f8e4df4f66111fb253f',
    'valid_u': '6e711a3f713cd95a825f536323e434b4d80f85a8e4e66d0cd662408e8779db50',
}


def check(copy: Copy) -> list[Finding]:
    """Findings of a copy of MeViS."""
    return [finding for split in raw.SPLITS for finding in _check_split(copy, split)]


def _check_split(copy: Copy, split: str) -> list[Finding]:
    findings: list[Finding] = []
    lists = [copy.found[place] for place in (f'{split}/{name}' for name in raw.LISTS) if place in copy.found]
    frames = copy.first(f'{split}/{raw.FRAMES}', f'{split}/{raw.ARCHIVE}')
    masks = copy.found.get(f'{split}/{raw.MASKS}')
    if not lists:
        findings.append(copy.lacks(f'{split}/{raw.LISTS[0]}', SOURCE))
    if frames is None:
        findings.append(copy.lacks(f'{split}/{raw.FRAMES}', f'{SOURCE} Or leave {raw.ARCHIVE} in its place.'))
    if masks is None and split not in raw.HIDDEN:
        findings.append(copy.lacks(f'{split}/{raw.MASKS}', SOURCE))
    if len(lists) > 1:
        names = ' and '.join(file.name for file in lists)
        mend = 'Move all but those of one edition elsewhere.'
        findings.append(
            Finding('wrong', f'has the sentences of several editions, {names}', str(copy.root / split), mend)
        )
    if len(lists) != 1:
        return findings
    videos = common.read(raw.read_videos, lists[0], findings, copy.root, split in raw.HIDDEN) or []
    whole = _count(findings, lists[0], split, videos)
    if frames is not None and videos:
        findings += _check_frames(frames, videos, copy.root)
    if masks is not None and split not in raw.HIDDEN:
        findings += _check_masks(masks, videos, copy.root)
        if not any(finding.where == str(masks) and finding.level == 'wrong' for finding in findings):
            findings.append(_check_sum(masks, split, whole and _edition(lists[0]) == 0))
    return findings


def _edition(file: pathlib.Path) -> int:
    """0 for the first, 1 for the second: their lists have different names."""
    return int('_v2' in file.name)


def _count(findings: list[Finding], file: pathlib.Path, split: str, videos: list[raw.Video]) -> bool:
    """Adds how many videos and sentences there are; returns whether these are the known numbers."""
    objects = [expression.objects for video in videos for expression in video.expressions]
    known = COUNTS[split][_edition(file)]
    if videos:
        findings += [
            counted(f'{split}: {unit}', file, number, of_edition)
            for unit, number, of_edition in zip(('videos', 'sentences'), (len(videos), len(objects)), known)
        ]
    if videos and split not in raw.HIDDEN:
        several = sum(len(each or ()) > 1 for each in objects)
        none = sum(each == () for each in objects)
        what = f'{split}: {several:,} sentences of several objects, {none:,} without target'
        findings.append(Finding('ok', what, str(file)))
    return (len(videos), len(objects)) == known


def _check_frames(frames: pathlib.Path, videos: list[raw.Video], root: pathlib.Path) -> list[Finding]:
    listed = {video.name: video.frames for video in videos}
    findings: list[Finding] = []
    if frames.name == raw.ARCHIVE:
        archive = common.read(raw.read_archive, frames, findings, root)
        if archive is None:
            return findings
        there = {
            (video, os.path.splitext(name)[0])
            for video, names in archive.places.items()
            for name in names
            if name.lower().endswith(raw.FRAME_ENDINGS)
        }
        missing = [f'{video}/{name}' for video, names in listed.items() for name in names if (video, name) not in there]
        if missing:
            what = f'frames that are listed and not there: {len(missing):,} ({common.some(missing)})'
            findings.append(Finding('missing', what, str(frames), common.AGAIN))
    else:
        findings = common.check_frames(listed, [frames], None, root)
    if not any(finding.level in ('missing', 'wrong') for finding in findings):
        number = sum(map(len, listed.values()))
        findings.append(Finding('ok', f'all {number:,} frames of {len(listed):,} videos are there', str(frames)))
    return findings


def _check_masks(masks: pathlib.Path, videos: list[raw.Video], root: pathlib.Path) -> list[Finding]:
    findings: list[Finding] = []
    index = common.read(mask_dict.read_index, masks, findings, root)
    if index is None:
        return findings
    wanted = {number for video in videos for expression in video.expressions for number in expression.objects or ()}
    missing = sorted(number for number in wanted if str(number) not in index.places)
    if missing:
        what = f'has no masks of {len(missing):,} objects that sentences refer to (anno_id {common.some(missing)})'
        findings.append(Finding('wrong', what, str(masks), 'Take masks and sentences of one edition.'))
    else:
        what = f'has the masks of all {len(wanted):,} objects that sentences refer to, of {len(index.places):,}'
        findings.append(Finding('ok', what, str(masks)))
    return findings


def _check_sum(masks: pathlib.Path, split: str, first: bool) -> Finding:
    """Compares a readable file with the first edition's. first: the sentences are all of the first edition."""
    try:
        files.check_regular(masks)
        with open(masks, 'rb') as stream:
            found = hashlib.file_digest(stream, 'sha256').hexdigest()
    except (OSError, ValueError) as error:
        return Finding('wrong', common.reason(error, masks), str(masks), common.AGAIN)
    if found == SHA256[split]:
        return Finding('ok', 'is the file of the first edition, by its SHA256', str(masks))
    what = f'has another SHA256 ({found[:12]}...) than the file of the first edition'
    return Finding('wrong' if first else 'note', what, str(masks), common.AGAIN if first else '')
