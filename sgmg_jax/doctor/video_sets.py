"""Checks copies of Ref-YouTube-VOS and Ref-DAVIS17 against the known releases."""
import dataclasses
import pathlib

from sgmg_jax import files
from sgmg_jax.data.metadata import VOID, check_sentence, parse_object_id
from sgmg_jax.doctor import common
from sgmg_jax.doctor.common import Copy, Finding, counted
from sgmg_jax.doctor.places import DAVIS_FRAMES, DAVIS_MASKS, DAVIS_TRAIN, DAVIS_VALID, LARGEST_LIST
from sgmg_jax.raw import davis, youtube

EXPRESSIONS = 'meta_expressions/{}/meta_expressions.json'
CHALLENGE = 'valid/meta_expressions_challenge.json'
YOUTUBE_SOURCE = ('Take {} from the download page of Ref-YouTube-VOS (github.com/skynbe/Refer-Youtube-VOS links to '
                  'it) and unpack it in the root.')
YOUTUBE_PLACES = (*map(EXPRESSIONS.format, ('train', 'valid', 'test')), CHALLENGE, 'valid/Annotations',
                  *(f'{split}/JPEGImages' for split in ('train', 'valid', 'test')), 'train/Annotations')
# Videos, expressions, frames of the released files; None: not known.
YOUTUBE_COUNTS = {'train': (3471, 12_913, None), 'valid and test': (507, 2096, 13_710), 'valid': (202, 834, 5486),
                  'test': (305, 1262, 8224)}
DAVIS_TEXTS = {f'{davis.TEXTS}/{name}': encoding for name, encoding in davis.TEXT_FILES.items()}
DAVIS_LISTS = {split: f'DAVIS/ImageSets/2017/{name}' for split, name in davis.SPLITS.items()}
DAVIS_PLACES = (*map(EXPRESSIONS.format, ('train', 'valid')), *DAVIS_FRAMES, *DAVIS_MASKS, *DAVIS_TEXTS,
                *DAVIS_LISTS.values())
DAVIS_SOURCE = 'Unpack DAVIS-2017-Unsupervised-trainval-480p.zip (davischallenge.org) in the root.'
TEXT_SOURCE = 'Unpack davis_text_annotations.zip (Khoreva et al., 2018; Max Planck Institute) in the root.'


def check_youtube(copy: Copy) -> list[Finding]:
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
            findings.append(copy.lacks(place, YOUTUBE_SOURCE.format('meta_expressions.zip'),
                                       'note' if split == 'valid' and challenge else 'missing'))
        else:
            findings.append(copy.lacks(
                place, 'Without it, valid consists of the videos that have folders. The official archive has lacked it '
                'since 2022; issue 6 of github.com/wjn922/ReferFormer has a link.', 'note'))
    valid, test = videos.get('valid'), videos.get('test')
    all_valid = valid
    if valid and test and test.keys() <= valid.keys():
        _count(findings, copy.found[EXPRESSIONS.format('valid')], 'valid and test', valid)
        valid = {name: video for name, video in valid.items() if name not in test}
    elif valid and test and test.keys() & valid.keys():
        findings.append(Finding('wrong', 'lists videos that the valid file does not list',
                                str(copy.found[EXPRESSIONS.format('test')]),
                                'Take both files from the same release.'))
    elif valid and test is None and 'valid/JPEGImages' in copy.found:
        there = set(common.listing(copy.found['valid/JPEGImages'])[0])
        valid = {name: video for name, video in valid.items() if name in there}
    if challenge:
        hidden, valid = valid, read_expressions(copy.found[CHALLENGE], True, findings)
        all_valid = valid
        valid = {name: video for name, video in valid.items() if name not in (test or ())}
        findings.append(Finding('ok', 'the public ground truth of valid is here; it is built instead of the hidden '
                                f'one of {len(hidden or ()):,} videos', str(copy.found[CHALLENGE])))
    elif CHALLENGE in copy.found:
        findings.append(copy.lacks('valid/Annotations', 'The ground truth of valid needs it: unpack it from the '
                                   'same archive.'))
    if all_valid and not valid:
        findings.append(Finding('wrong', 'lists only videos of test or without frames',
                                str(copy.root / 'valid'), 'Take all files from the same release.'))
    for split, listed in (('train', videos.get('train')), ('valid', valid), ('test', test)):
        frames, masks = f'{split}/JPEGImages', f'{split}/Annotations'
        if listed:
            file = copy.found[CHALLENGE] if split == 'valid' and challenge else copy.found[EXPRESSIONS.format(split)]
            _count(findings, file, split, listed)
        if frames not in copy.found:
            if split == 'test':
                findings.append(copy.lacks(frames, 'Only needed for the test phase of the challenge.', 'note'))
            else:
                findings.append(copy.lacks(frames, YOUTUBE_SOURCE.format(f'{split}.zip')))
        binary = split == 'valid' and challenge
        known = not binary and (split == 'train' or any(_known(video) for video in (listed or {}).values()))
        if known and masks not in copy.found:
            findings.append(copy.lacks(masks, YOUTUBE_SOURCE.format(f'{split}.zip')))
        if listed and frames in copy.found:
            truth = [copy.found[masks]] if known and masks in copy.found else None
            findings += check_split(listed, [copy.found[frames]], truth, copy.root)
            if binary:
                findings += _check_binary(listed, copy.found[masks], copy.root)
            others = {name: other for other, there in videos.items() if other != split and there for name in there}
            findings += _unlisted(listed, copy.found[frames], {} if split == 'valid' and not test else others)
    return findings


def check_davis(copy: Copy) -> list[Finding]:
    """Findings of a copy of Ref-DAVIS17, converted or as downloaded."""
    if any(EXPRESSIONS.format(split) in copy.found for split in ('train', 'valid')):
        return _check_converted_davis(copy)
    findings = [Finding('note', 'the original downloads (no meta_expressions/)', str(copy.root))]
    texts = {}
    for place in DAVIS_TEXTS:
        if place in copy.found:
            texts[place] = _read_davis_text(copy.found[place], DAVIS_TEXTS[place], findings)
        else:
            findings.append(copy.lacks(place, TEXT_SOURCE))
    frames, masks = copy.first(DAVIS_FRAMES[0]), copy.first(DAVIS_MASKS[0])
    if frames is None:
        findings.append(copy.lacks(DAVIS_FRAMES[0], DAVIS_SOURCE))
    if masks is None:
        findings.append(copy.lacks(DAVIS_MASKS[0], DAVIS_SOURCE))
        if DAVIS_MASKS[1] in copy.found:
            findings.append(Finding('wrong', 'are the masks of the semi-supervised task, which has other objects',
                                    str(copy.found[DAVIS_MASKS[1]]), DAVIS_SOURCE))
    if len(texts) == len(DAVIS_TEXTS) and all(texts.values()):
        findings += _compare_davis_texts(copy, texts)
    for split, place in DAVIS_LISTS.items():
        names = DAVIS_VALID if split == 'valid' else DAVIS_TRAIN
        of_class = copy.root / 'DAVIS/ImageSets/2017/class' / davis.SPLITS[split]  # in old releases
        file = copy.found.get(place, of_class)
        if place not in copy.found and not of_class.is_file():
            findings.append(copy.lacks(place, DAVIS_SOURCE))
            continue
        listed = common.read(davis.read_list, file, findings) or []
        findings.append(counted(f'{split}: videos', file, len(listed), len(names), mend=_lacking(names, listed)))
        for text in texts:
            silent = sorted(set(listed) - {video for video, _ in texts[text]})
            if silent:
                findings.append(Finding('wrong', f'has no sentence for {len(silent)} videos of {split} '
                                        f'({common.some(silent)})', str(copy.found[text]), common.AGAIN))
        if frames:
            there = {video: _frame_names(frames / video, masks / video if masks else None) for video in listed}
            findings += check_split({video: (there[video], {}) for video in listed}, [frames],
                                    [masks] if masks else None, copy.root)
            bare = [video for video in listed if not there[video]]
            if bare:
                findings.append(Finding('missing', f'{len(bare)} folders of {split} without a frame '
                                        f'({common.some(bare)})', str(frames), common.AGAIN))
            findings.append(counted(f'{split}: frames', frames, sum(map(len, there.values())),
                                    1999 if split == 'valid' else 4209))
    return findings


def _frame_names(frames: pathlib.Path, masks: pathlib.Path | None) -> tuple[str, ...]:
    """The names of all frames and masks, as in the builder."""
    names = [name for folder, endings in ((frames, youtube.FRAME_ENDINGS), (masks, ('.png',))) if folder
             for name in common.listing(folder)[1] if name.lower().endswith(endings)]
    return tuple(sorted({name.rpartition('.')[0] for name in names}))


def _known(video: tuple) -> bool:
    """Whether the objects of the sentences are known."""
    return any(value > 0 for value in video[1].values())


def _check_converted_davis(copy: Copy) -> list[Finding]:
    findings = [Finding('note', 'converted to the layout of Ref-YouTube-VOS', str(copy.root))]
    for split, names, frames_known, known, about in (('train', DAVIS_TRAIN, 4209, 576, True),
                                                     ('valid', DAVIS_VALID, 1999, 244, False)):
        place = EXPRESSIONS.format(split)
        frame_places = [p for p in DAVIS_FRAMES if p.startswith(split)]
        mask_places = [p for p in DAVIS_MASKS if p.startswith(split)]
        if split == 'train' and not copy.first(place, *frame_places):
            findings.append(Finding('note', 'the train split is not here; it is not needed to evaluate',
                                    str(copy.root / 'train')))
            continue
        frames, masks = copy.first(*frame_places, DAVIS_FRAMES[0]), copy.first(*mask_places, DAVIS_MASKS[0])
        if frames is None:
            findings.append(copy.lacks(f'{split}/JPEGImages', DAVIS_SOURCE + ' Then convert it.'))
        if masks is None:
            findings.append(copy.lacks(f'{split}/Annotations', DAVIS_SOURCE + ' Then convert it.'))
        if place not in copy.found:
            findings.append(copy.lacks(place, 'The conversion writes it (ReferFormer\'s convert_davis_to_ytvos.py); '
                                       'the original downloads can be built without it.'))
            continue
        listed = read_expressions(copy.found[place], True, findings)
        if not listed:
            continue
        findings.append(counted(f'{split}: videos', copy.found[place], len(listed), len(names),
                                mend=_lacking(names, listed)))
        _count(findings, copy.found[place], split, listed, (None, known, frames_known), about)
        if frames:
            findings += check_split(listed, _candidates(copy, (*frame_places, DAVIS_FRAMES[0])),
                                    _candidates(copy, (*mask_places, DAVIS_MASKS[0])) if masks else None, copy.root)
    return findings


def _candidates(copy: Copy, places: tuple[str, ...]) -> list[pathlib.Path]:
    """The folders of videos, in the order in which the builder tries them."""
    return [copy.found.get(place, copy.root / place) for place in places]


def read_expressions(file: pathlib.Path, known_objects: bool, findings: list[Finding],
                     may_be_empty: bool = False) -> dict:
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
            if not _is_sentence(text):
                wrong('expressions whose field "exp" is missing or empty', where,
                      'Write a sentence, or remove the expression.')
                continue
            value = expression.get('obj_id', 0)
            objects[key] = parse_object_id(value) or 0
            if not objects[key] and (known_objects or 'obj_id' in expression):
                wrong(f'expressions whose field "obj_id" is no whole number from 1 to {VOID - 1}',
                      f'{where}: {value!a:.80}')
        read[name] = tuple(sorted(frames)), objects
    findings += problems.findings()
    return read


def check_split(videos: dict, frames: list[pathlib.Path], masks: list[pathlib.Path] | None, root: pathlib.Path
                ) -> list[Finding]:
    """Checks the frames and the palette masks of the videos of `read_expressions`."""
    found = common.check_frames({name: names for name, (names, _) in videos.items()}, frames, masks, root)
    if not any(finding.level in ('missing', 'wrong') for finding in found):
        what = 'frames and masks' if masks else 'frames'
        where = next((folder for folder in frames if folder.is_dir()), frames[0])
        found.append(Finding('ok', f'all {sum(len(names) for names, _ in videos.values()):,} {what} of {len(videos):,} '
                             'videos are there', str(where)))
    return found


def _is_sentence(text) -> bool:
    try:
        return bool(check_sentence(text, ''))
    except ValueError:
        return False


def _check_binary(videos: dict, masks: pathlib.Path, root: pathlib.Path) -> list[Finding]:
    """Checks the public ground truth of valid, one folder per expression."""
    flat = [name for name in videos if any(file.lower().endswith('.png') for file in common.listing(masks / name)[1])]
    if flat:
        return [Finding('wrong', f'holds index masks ({common.some(flat)}) where the ground truth has one folder an '
                        'expression', str(masks), 'These are of YouTube-VOS, not of Ref-YouTube-VOS. Take those of '
                        'the archive that holds meta_expressions_challenge.json.')]
    expressions = {f'{name}/{key}': frames for name, (frames, objects) in videos.items() for key in objects}
    return common.check_frames(expressions, [masks], None, root, 'PNG') or [
        Finding('ok', f'the masks of all {len(expressions):,} expressions are there', str(masks))]


def _unlisted(listed: dict, folder: pathlib.Path, others: dict[str, str]) -> list[Finding]:
    """Notes on folders of videos that their split does not list, especially of videos that another split lists."""
    extra = sorted(set(common.listing(folder)[0]) - set(listed))
    findings = []
    for split in sorted({others[name] for name in extra if name in others}):
        names = [name for name in extra if others.get(name) == split]
        findings.append(Finding('note', f'{len(names):,} folders of videos of {split} ({common.some(names)}), which '
                                'are not used here', str(folder), f'They belong in {split}/JPEGImages.'))
    rest = [name for name in extra if name not in others]
    if rest:
        findings.append(Finding('note', f'{len(rest):,} folders that no expressions file lists ({common.some(rest)}), '
                                'which are not used', str(folder)))
    return findings


def _count(findings: list[Finding], file: pathlib.Path, split: str, videos: dict, known=None, about: bool = False):
    known = known or YOUTUBE_COUNTS[split]
    numbers = (len(videos), sum(len(objects) for _, objects in videos.values()),
               sum(len(frames) for frames, _ in videos.values()))
    for unit, found, wanted in zip(('videos', 'expressions', 'frames listed'), numbers, known):
        if wanted is not None or split == 'train' and unit != 'videos':
            findings.append(counted(f'{split}: {unit}', file, found, wanted, about and unit == 'expressions'))


def _lacking(names: frozenset[str], there) -> str:
    lacking = sorted(names - set(there))
    return f'{common.PART} It is without {common.some(lacking, 6)}.' if lacking else ''


def _read_davis_text(file: pathlib.Path, encoding: str, findings: list[Finding]) -> dict[tuple[str, str], str]:
    """{(video, object id): sentence} of lines such as: blackswan 1 "a black swan"."""
    problems, sentences = common.Problems(), {}
    text = common.read(files.read_text, file, findings, encoding)
    for number, line in enumerate((text or '').split('\n'), 1):
        words = line.split()
        if not words:
            continue
        quoted, example = ' '.join(words[2:]), f'line {number}: {line.strip()[:60]!a}'
        object_id = parse_object_id(words[1]) if len(words) > 2 else None
        if object_id is None or len(quoted) < 2 or not _is_sentence(quoted.removeprefix('"').removesuffix('"')):
            problems.add('wrong', 'lines that are not: video, object id, sentence in quotes', file, common.AGAIN,
                         example)
            continue
        key = davis.MISSPELT.get(words[0], words[0]), str(object_id)
        if key in sentences:
            problems.add('wrong', 'lines about an object that another line is about', file, 'Remove one of them.',
                         example)
        if quoted[0] + quoted[-1] != '""':
            problems.add('note', 'sentences without quotes', file, '', example)
        sentences[key] = quoted
    findings += problems.findings()
    if text is not None and not sentences:
        findings.append(Finding('wrong', 'holds no sentence', str(file), common.AGAIN))
    return sentences


def _compare_davis_texts(copy: Copy, texts: dict[str, dict]) -> list[Finding]:
    """Checks that all four files describe the same objects."""
    findings = []
    everything = set().union(*texts.values())
    for place, sentences in texts.items():
        silent = sorted(everything - set(sentences))
        if silent:
            findings.append(Finding('wrong', f'has no sentence for {len(silent)} objects that another annotation '
                                    f'describes ({common.some([" ".join(pair) for pair in silent])})',
                                    str(copy.found[place]), common.AGAIN))
    valid = sum(video in DAVIS_VALID for video, _ in everything)
    findings += [counted('valid: objects', copy.root / 'davis_text_annotations', valid, 61),
                 counted('train: objects', copy.root / 'davis_text_annotations', len(everything) - valid, 144,
                         about=True)]
    return findings
