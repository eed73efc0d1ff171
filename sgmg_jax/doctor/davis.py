"""Checks a copy of Ref-DAVIS17 against the known release, converted or as downloaded."""

import pathlib

from sgmg_jax import files
from sgmg_jax.data.metadata import parse_object_id
from sgmg_jax.doctor import common
from sgmg_jax.doctor.common import Copy, Finding, counted
from sgmg_jax.doctor.places import DAVIS_FRAMES, DAVIS_MASKS, DAVIS_TRAIN, DAVIS_VALID
from sgmg_jax.doctor.youtube import EXPRESSIONS, check_split, count, is_sentence, read_expressions
from sgmg_jax.raw import davis, youtube

TEXTS = {f'{davis.TEXTS}/{name}': encoding for name, encoding in davis.TEXT_FILES.items()}
LISTS = {split: f'DAVIS/ImageSets/2017/{name}' for split, name in davis.SPLITS.items()}
PLACES = (*map(EXPRESSIONS.format, ('train', 'valid')), *DAVIS_FRAMES, *DAVIS_MASKS, *TEXTS, *LISTS.values())
SOURCE = 'Unpack DAVIS-2017-Unsupervised-trainval-480p.zip (davischallenge.org) in the root.'
TEXT_SOURCE = 'Unpack davis_text_annotations.zip (Khoreva et al., 2018; Max Planck Institute) in the root.'


def check(copy: Copy) -> list[Finding]:
    """Findings of a copy of Ref-DAVIS17, converted or as downloaded."""
    if any(EXPRESSIONS.format(split) in copy.found for split in ('train', 'valid')):
        return _check_converted_davis(copy)
    findings = [Finding('note', 'the original downloads (no meta_expressions/)', str(copy.root))]
    texts = {}
    for place in TEXTS:
        if place in copy.found:
            texts[place] = _read_text(copy.found[place], TEXTS[place], findings)
        else:
            findings.append(copy.lacks(place, TEXT_SOURCE))
    frames, masks = copy.first(DAVIS_FRAMES[0]), copy.first(DAVIS_MASKS[0])
    if frames is None:
        findings.append(copy.lacks(DAVIS_FRAMES[0], SOURCE))
    if masks is None:
        findings.append(copy.lacks(DAVIS_MASKS[0], SOURCE))
        if DAVIS_MASKS[1] in copy.found:
            findings.append(
                Finding(
                    'wrong',
                    'are the masks of the semi-supervised task, which has other objects',
                    str(copy.found[DAVIS_MASKS[1]]),
                    SOURCE,
                )
            )
    if len(texts) == len(TEXTS) and all(texts.values()):
        findings += _compare_texts(copy, texts)
    for split, place in LISTS.items():
        names = DAVIS_VALID if split == 'valid' else DAVIS_TRAIN
        of_class = copy.root / 'DAVIS/ImageSets/2017/class' / davis.SPLITS[split]  # in old releases
        file = copy.found.get(place, of_class)
        if place not in copy.found and not of_class.is_file():
            findings.append(copy.lacks(place, SOURCE))
            continue
        listed = common.read(davis.read_list, file, findings) or []
        findings.append(counted(f'{split}: videos', file, len(listed), len(names), mend=_lacking(names, listed)))
        for text in texts:
            silent = sorted(set(listed) - {video for video, _ in texts[text]})
            if silent:
                findings.append(
                    Finding(
                        'wrong',
                        f'has no sentence for {len(silent)} videos of {split} ({common.some(silent)})',
                        str(copy.found[text]),
                        common.AGAIN,
                    )
                )
        if frames:
            there = {video: _frame_names(frames / video, masks / video if masks else None) for video in listed}
            findings += check_split(
                {video: (there[video], {}) for video in listed}, [frames], [masks] if masks else None, copy.root
            )
            bare = [video for video in listed if not there[video]]
            if bare:
                findings.append(
                    Finding(
                        'missing',
                        f'{len(bare)} folders of {split} without a frame ({common.some(bare)})',
                        str(frames),
                        common.AGAIN,
                    )
                )
            findings.append(
                counted(f'{split}: frames', frames, sum(map(len, there.values())), 1999 if split == 'valid' else 4209)
            )
    return findings


def _frame_names(frames: pathlib.Path, masks: pathlib.Path | None) -> tuple[str, ...]:
    """The names of all frames and masks, as in the builder."""
    names = [
        name
        for folder, endings in ((frames, youtube.FRAME_ENDINGS), (masks, ('.png',)))
        if folder
        for name in common.listing(folder)[1]
        if name.lower().endswith(endings)
    ]
    return tuple(sorted({name.rpartition('.')[0] for name in names}))


def _check_converted_davis(copy: Copy) -> list[Finding]:
    findings = [Finding('note', 'converted to the layout of Ref-YouTube-VOS', str(copy.root))]
    for split, names, frames_known, known, about in (
        ('train', DAVIS_TRAIN, 4209, 576, True),
        ('valid', DAVIS_VALID, 1999, 244, False),
    ):
        place = EXPRESSIONS.format(split)
        frame_places = [p for p in DAVIS_FRAMES if p.startswith(split)]
        mask_places = [p for p in DAVIS_MASKS if p.startswith(split)]
        if split == 'train' and not copy.first(place, *frame_places):
            findings.append(
                Finding('note', 'the train split is not here; it is not needed to evaluate', str(copy.root / 'train'))
            )
            continue
        frames, masks = copy.first(*frame_places, DAVIS_FRAMES[0]), copy.first(*mask_places, DAVIS_MASKS[0])
        if frames is None:
            findings.append(copy.lacks(f'{split}/JPEGImages', SOURCE + ' Then convert it.'))
        if masks is None:
            findings.append(copy.lacks(f'{split}/Annotations', SOURCE + ' Then convert it.'))
        if place not in copy.found:
            findings.append(
                copy.lacks(
                    place,
                    "The conversion writes it (ReferFormer's convert_davis_to_ytvos.py); "
                    'the original downloads can be built without it.',
                )
            )
            continue
        listed = read_expressions(copy.found[place], True, findings)
        if not listed:
            continue
        findings.append(
            counted(f'{split}: videos', copy.found[place], len(listed), len(names), mend=_lacking(names, listed))
        )
        count(findings, copy.found[place], split, listed, (None, known, frames_known), about)
        if frames:
            findings += check_split(
                listed,
                _candidates(copy, (*frame_places, DAVIS_FRAMES[0])),
                _candidates(copy, (*mask_places, DAVIS_MASKS[0])) if masks else None,
                copy.root,
            )
    return findings


def _candidates(copy: Copy, places: tuple[str, ...]) -> list[pathlib.Path]:
    """The folders of videos, in the order in which the builder tries them."""
    return [copy.found.get(place, copy.root / place) for place in places]


def _lacking(names: frozenset[str], there) -> str:
    lacking = sorted(names - set(there))
    return f'{common.PART} It is without {common.some(lacking, 6)}.' if lacking else ''


def _read_text(file: pathlib.Path, encoding: str, findings: list[Finding]) -> dict[tuple[str, str], str]:
    """{(video, object id): sentence} of lines such as: blackswan 1 "a black swan"."""
    problems, sentences = common.Problems(), {}
    text = common.read(files.read_text, file, findings, encoding)
    for number, line in enumerate((text or '').split('\n'), 1):
        words = line.split()
        if not words:
            continue
        quoted, example = ' '.join(words[2:]), f'line {number}: {line.strip()[:60]!a}'
        object_id = parse_object_id(words[1]) if len(words) > 2 else None
        if object_id is None or len(quoted) < 2 or not is_sentence(quoted.removeprefix('"').removesuffix('"')):
            problems.add(
                'wrong', 'lines that are not: video, object id, sentence in quotes', file, common.AGAIN, example
            )
            continue
        key = davis.MISSPELT.get(words[0], words[0]), str(object_id)
        if key in sentences:
            problems.add(
                'wrong', 'lines about an object that another line is about', file, 'Remove one of them.', example
            )
        if quoted[0] + quoted[-1] != '""':
            problems.add('note', 'sentences without quotes', file, '', example)
        sentences[key] = quoted
    findings += problems.findings()
    if text is not None and not sentences:
        findings.append(Finding('wrong', 'holds no sentence', str(file), common.AGAIN))
    return sentences


def _compare_texts(copy: Copy, texts: dict[str, dict]) -> list[Finding]:
    """Checks that all four files describe the same objects."""
    findings = []
    everything = set().union(*texts.values())
    for place, sentences in texts.items():
        silent = sorted(everything - set(sentences))
        if silent:
            findings.append(
                Finding(
                    'wrong',
                    f'has no sentence for {len(silent)} objects that another annotation '
                    f'describes ({common.some([" ".join(pair) for pair in silent])})',
                    str(copy.found[place]),
                    common.AGAIN,
                )
            )
    valid = sum(video in DAVIS_VALID for video, _ in everything)
    findings += [
        counted('valid: objects', copy.root / 'davis_text_annotations', valid, 61),
        counted('train: objects', copy.root / 'davis_text_annotations', len(everything) - valid, 144, about=True),
    ]
    return findings
