"""Finds the parts of data sets below a folder, by their content, and the place where each belongs.

A part is a characteristic folder or file ("the frames of Ref-YouTube-VOS's valid"). Its place is the expected path
relative to the root of its data set ('valid/JPEGImages'). Releases differ, so a part may have several places; if it
lies at one of them, that is its place.
"""

import codecs
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
import dataclasses
import os
import pathlib
import re

from sgmg_jax import files
from sgmg_jax.doctor import common
from sgmg_jax.doctor.common import Finding, quote

LEVELS = 4  # of folders that are searched
MAX_FOLDERS = 20_000
LARGEST_LIST = 2**26  # bytes of a file of sentences
YOUTUBE_SPLITS = {'train': 3471, 'valid': 202, 'test': 305}  # videos; the valid file also lists those of test
MEVIS_SPLITS = {'train': 1662, 'valid_u': 50, 'valid': 140}  # videos
MEVIS_LISTS = ('meta_expressions.json', 'meta_expressions_v2.json', 'meta_expressions_v2_release.json')
DAVIS_VALID = frozenset(
    'bike-packing blackswan bmx-trees breakdance camel car-roundabout car-shadow cows dance-twirl dog dogs-jump '
    'drift-chicane drift-straight goat gold-fish horsejump-high india judo kite-surf lab-coat libby loading '
    'mbike-trick motocross-jump paragliding-launch parkour pigs scooter-black shooting soapbox'.split()
)
DAVIS_TRAIN = frozenset(
    'bear bmx-bumps boat boxing-fisheye breakdance-flare bus car-turn cat-girl classic-car color-run crossing '
    'dance-jump dancing disc-jockey dog-agility dog-gooses dogs-scale drift-turn drone elephant flamingo hike hockey '
    'horsejump-low kid-football kite-walk koala lady-running lindy-hop longboard lucia mallard-fly mallard-water '
    'miami-surf motocross-bumps motorbike night-race paragliding planes-water rallye rhino rollerblade schoolgirls '
    'scooter-board scooter-gray sheep skate-park snowboard soccerball stroller stunt surf swing tennis tractor-sand '
    'train tuk-tuk upside-down varanus-cage walking'.split()
)
DAVIS_FRAMES = (
    'DAVIS/JPEGImages/480p',
    *(f'{split}/JPEGImages{level}' for split in ('train', 'valid') for level in ('/480p', '')),
)
DAVIS_MASKS = (
    'DAVIS/Annotations_unsupervised/480p',
    'DAVIS/Annotations/480p',
    *(
        f'{split}/{folder}'
        for split in ('train', 'valid')
        for folder in ('Annotations_unsupervised/480p', 'Annotations/480p', 'Annotations')
    ),
)
JHMDB_ACTIONS = frozenset(
    'brush_hair catch clap climb_stairs golf jump kick_ball pick pour pullup push run shoot_ball shoot_bow shoot_gun '
    'sit stand swing_baseball throw walk wave'.split()
)
REFCOCO = ('refcoco', 'refcoco+', 'refcocog')


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a data set: the data set's name, the part's place and its actual path."""

    name: str
    place: str
    path: pathlib.Path

    @property
    def root(self) -> pathlib.Path | None:
        """The root of its data set, if the part lies at its place."""
        levels = len(pathlib.PurePosixPath(self.place).parts)
        return self.path.parents[levels - 1] if _ends(self.path, self.place) else None


@dataclasses.dataclass
class Survey:
    """The contents of a folder. junk: of macOS. dead: dead links. closed: folders that cannot be read, and why.
    cut: the search stopped early."""

    parts: list[Part]
    archives: list[pathlib.Path]
    junk: list[pathlib.Path]
    dead: list[pathlib.Path]
    closed: list[tuple[pathlib.Path, str]]
    cut: bool


def survey(folder: pathlib.Path, leave_out: pathlib.Path | None = None, max_folders: int = MAX_FOLDERS) -> Survey:
    """Searches a folder down to `LEVELS` levels, breadth first; does not descend into parts."""
    found = Survey([], [], [], [], [], False)
    folders: list[tuple[pathlib.Path, list[str], list[str]]] = []
    expression_files: list[pathlib.Path] = []
    queue = deque([(folder, 0)])
    while queue:
        if len(folders) == max_folders:
            found.cut = True
            break
        path, depth = queue.popleft()
        try:
            names, others = files.listing(path)
        except OSError as error:
            found.closed.append((path, common.reason(error, path)))
            continue
        folders.append((path, names, others))
        expression_files += [
            path / name for name in others if name.endswith('.json') and name.startswith('meta_expressions')
        ]
        found.archives += [
            path / name
            for name in others
            if name.lower().endswith(('.zip', '.tar', '.tgz', '.tar.gz')) and os.path.isfile(path / name)
        ]
        found.dead += [
            path / name
            for name in others[:1000]  # The check of a part finds those among its many files.
            if os.path.islink(path / name) and not os.path.exists(path / name)
        ]
        if (path / '__MACOSX').is_dir():
            found.junk.append(path / '__MACOSX')
        if depth < LEVELS and not any(_folder_parts(path, names, others, {})):
            queue += [
                (path / name, depth + 1) for name in names if path / name != leave_out and not name.startswith('.')
            ]
    known: dict[str, set[str]] = defaultdict(set)
    for file in expression_files:
        for part, videos in _expressions_part(file):
            found.parts.append(part)
            if part.name == 'ref_youtube_vos':
                known[part.place.split('/')[1]] |= videos
            elif part.name == 'mevis':
                known[f'mevis {part.place.split("/")[0]}'] |= videos
    for path, names, others in folders:
        found.parts += _folder_parts(path, names, others, known)
        for name in others:
            if name.endswith(('.txt', '.csv', '.json')):
                found.parts += _file_parts(path / name)
    return found


def find_root(parts: list[Part], folder: pathlib.Path) -> pathlib.Path:
    """The root for which most parts lie at their place; `folder` itself if none does."""
    votes: Counter[pathlib.Path] = Counter()
    for part in parts:
        root = part.root
        # An archive was unpacked one level too deep: train/train, not a data set named train.
        while root and root.name in (
            'train',
            'valid',
            'valid_u',
            'test',
            'meta_expressions',
            'Release',
            'text_annotations',
            'davis_text_annotations',
            'images',
        ):
            root = root.parent
        if root and (folder in (root, *root.parents) or root in folder.parents[:LEVELS]):
            votes[root] += 1
    if not votes:
        return folder
    return min(votes, key=lambda root: (-votes[root], len(root.parts), str(root)))


def place_parts(parts: list[Part], root: pathlib.Path) -> tuple[dict[str, pathlib.Path], list[Finding]]:
    """Chooses one path for each place; findings name the parts that lie elsewhere."""
    by_place: dict[str, list[Part]] = defaultdict(list)
    findings: list[Finding] = []
    found: dict[str, pathlib.Path] = {}
    for part in dict.fromkeys(parts):
        by_place[part.place].append(part)
    copies = Counter(part.root for part in set(parts) if part.root and part.root != root)
    for place, candidates in by_place.items():
        right = root / place
        paths = [part.path for part in candidates]
        found[place] = right if right in paths else paths[0]
        if found[place] != right:
            findings.append(
                Finding(
                    'wrong',
                    f'lies in the wrong place; it belongs at {right}',
                    str(found[place]),
                    move(found[place], right),
                )
            )
        findings += [
            Finding('note', f'another copy of {place}, which is ignored', str(part.path))
            for part in candidates
            if part.path != found[place] and (not part.root or copies[part.root] < 2)
        ]
    findings += [
        Finding(
            'note',
            f'another copy of {number} parts, which is not examined',
            str(other),
            f'python -m sgmg_jax.doctor {quote(other)}',
        )
        for other, number in copies.items()
        if number > 1
    ]
    return found, findings


def move(source: pathlib.Path, target: pathlib.Path) -> str:
    """The command that moves `source` to `target`, even if it lies inside `target`."""
    if target in source.parents:
        aside = target.with_name(target.name + '.moved')
        inner = ' '.join(quote(path) for path in (source, *source.parents)[1 : source.parents.index(target) + 2])
        return f'mv {quote(source)} {quote(aside)} && rmdir {inner} && mv {quote(aside)} {quote(target)}'
    first = ''
    if target.is_dir():
        first = f'rmdir {quote(target)} && '
    elif not target.parent.exists():
        first = f'mkdir -p {quote(target.parent)} && '
    return f'{first}mv {quote(source)} {quote(target)}'


def _ends(path: pathlib.Path, place: str) -> bool:
    parts = pathlib.PurePosixPath(place).parts
    return path.parts[-len(parts) :] == parts


def _folder_parts(
    path: pathlib.Path, folders: list[str], others: list[str], known: Mapping[str, set[str]]
) -> Iterator[Part]:
    """The part that a folder is, judged by the folders and files in it."""
    if 'dataset_info.json' in others:
        yield Part('records', '.', path)
    if any(name.startswith('COCO_train2014_') for name in others):
        yield Part('refcoco', 'images/train2014' if _ends(path, 'images/train2014') else 'train2014', path)
    if any(re.fullmatch(r'.{11}\.mp4', name, re.IGNORECASE) for name in others):
        yield Part('a2d_sentences', f'Release/{"clips320H" if path.name == "clips320H" else "CLIPS320"}', path)
    if any(re.fullmatch(r'refs\(\w+\)\.p|instances_refcoco[+g]?_\w+\.json', name) for name in others):
        yield Part('refcoco', _refcoco_name(path, others), path)
    if 'JPEGImages.tar' in others and path.name in MEVIS_SPLITS and {'mask_dict.json', *MEVIS_LISTS} & {*others}:
        yield Part('mevis', f'{path.name}/JPEGImages.tar', path / 'JPEGImages.tar')
    mevis = [name for name in folders if re.fullmatch('[0-9a-f]{12}', name)]
    if mevis:
        if _kind_of_videos(path, mevis) == 'JPEGImages':
            yield Part('mevis', f'{_mevis_split(path, mevis, known)}/JPEGImages', path)
        return
    youtube = [name for name in folders if re.fullmatch('[0-9a-f]{10}', name)]
    if youtube:
        kind = _kind_of_videos(path, youtube)
        if kind:
            yield Part('ref_youtube_vos', f'{_youtube_split(path, youtube, known)}/{kind}', path)
        return
    # 'train' is also a split.
    davis = [name for name in folders if name in DAVIS_VALID | DAVIS_TRAIN and name != 'train']
    kind = _kind_of_videos(path, davis)
    if kind and path.name != 'Full-Resolution':
        yield Part('ref_davis', _davis_place(path, kind, set(davis)), path)
    actions = sorted(JHMDB_ACTIONS.intersection(folders))
    for action in actions[:3]:
        for video in common.listing(path / action)[0][:3]:
            images = {name.lower() for name in common.listing(path / action / video)[1]}
            if images & {'puppet_mask.mat', '00001.png'}:
                yield Part('jhmdb_sentences', 'puppet_mask' if 'puppet_mask.mat' in images else 'Rename_Images', path)
                return
    for video in folders[:3]:
        if re.fullmatch('.{11}', video) and any(
            name.lower().endswith('.h5') for name in common.listing(path / video)[1]
        ):
            yield Part('a2d_sentences', 'text_annotations/a2d_annotation_with_instances', path)
            return


def _kind_of_videos(path: pathlib.Path, videos: list[str]) -> str:
    """'JPEGImages' or 'Annotations', by the contents of the videos' folders; '' for neither."""
    for video in videos[:5]:
        folders, others = common.listing(path / video)
        if any(name.lower().endswith(('.jpg', '.jpeg')) for name in others):
            return 'JPEGImages'
        if any(name.lower().endswith('.png') for name in others):
            return 'JPEGImages' if path.name == 'JPEGImages' else 'Annotations'
        if folders and any(name.lower().endswith('.png') for name in common.listing(path / video / folders[0])[1]):
            return 'Annotations'
    return ''


def _youtube_split(path: pathlib.Path, videos: list[str], known: Mapping[str, set[str]]) -> str:
    shared = {split: len(known[split].intersection(videos)) if split in known else 0 for split in YOUTUBE_SPLITS}
    if shared['train'] > shared['valid']:
        return 'train'
    if shared['valid'] or shared['test']:
        return 'test' if 2 * shared['test'] > len(videos) else 'valid'
    if path.parent.name in YOUTUBE_SPLITS:
        return path.parent.name
    return min(YOUTUBE_SPLITS, key=lambda split: abs(YOUTUBE_SPLITS[split] - len(videos)))


def _mevis_split(path: pathlib.Path, videos: list[str], known: Mapping[str, set[str]]) -> str:
    shared = {split: len(known.get(f'mevis {split}', set()).intersection(videos)) for split in MEVIS_SPLITS}
    if any(shared.values()):
        return max(MEVIS_SPLITS, key=lambda split: shared[split])
    if path.parent.name in MEVIS_SPLITS:
        return path.parent.name
    return min(MEVIS_SPLITS, key=lambda split: abs(MEVIS_SPLITS[split] - len(videos)))


def _davis_place(path: pathlib.Path, kind: str, videos: set[str]) -> str:
    splits = [split for split, names in (('valid', DAVIS_VALID), ('train', DAVIS_TRAIN)) if names & videos]
    for place in DAVIS_FRAMES if kind == 'JPEGImages' else DAVIS_MASKS:
        if _ends(path, place) and (place.startswith('DAVIS') or place.split('/')[0] in splits):
            return place
    if len(splits) == 1 and path.name != '480p':  # '480p' are the original downloads, even if they hold one split.
        return f'{splits[0]}/{kind}'
    if kind == 'JPEGImages':
        return DAVIS_FRAMES[0]
    return DAVIS_MASKS[0 if 'Annotations_unsupervised' in path.parts else 1]


def _refcoco_name(path: pathlib.Path, others: list[str]) -> str:
    if path.name in REFCOCO:
        return path.name
    for name in others:
        match = re.fullmatch(r'instances_(refcoco[+g]?)_\w+\.json', name)
        if match or name == 'refs(umd).p':
            return match[1] if match else 'refcocog'
    try:
        text = files.read_bytes(path / 'refs(unc).p', LARGEST_LIST)
    except (OSError, ValueError):
        return 'refcocog'  # The others always have UNC's split, too.
    # RefCOCO+ forbade words of location; every eighth sentence of RefCOCO has one.
    return 'refcoco' if 50 * text.count(b'left') > text.count(b'sent_id') else 'refcoco+'


def _file_parts(file: pathlib.Path) -> Iterator[Part]:
    """The part that a text file is, judged by its name and first bytes."""
    try:
        files.check_regular(file)
        with open(file, 'rb') as stream:
            begin = stream.read(4096)
    except (OSError, ValueError):
        return
    wide = begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    head = begin.removeprefix(codecs.BOM_UTF8).decode('utf-16' if wide else 'latin-1', errors='ignore')
    line = head.splitlines()[0] if head.strip() else ''
    if file.name == 'mask_dict.json':
        yield Part('mevis', f'{"valid_u" if file.parent.name == "valid_u" else "train"}/mask_dict.json', file)
    elif re.fullmatch(r'Davis17_annot[12](_full_video)?\.txt', file.name):
        yield Part('ref_davis', f'davis_text_annotations/{file.name}', file)
    elif file.name in ('train.txt', 'val.txt') and _ends(file, f'DAVIS/ImageSets/2017/{file.name}'):
        # Other files of these names lie beside the converted splits, for the official evaluation.
        yield Part('ref_davis', f'DAVIS/ImageSets/2017/{file.name}', file)
    elif line.startswith('video_id,instance_id,query'):
        yield Part('a2d_sentences', 'text_annotations/a2d_annotation.txt', file)
    elif file.name == 'a2d_missed_videos.txt':
        yield Part('a2d_sentences', 'text_annotations/a2d_missed_videos.txt', file)
    elif file.suffix == '.csv' and re.fullmatch(r'.{11}(,[^,]*){8}', line.strip()):
        yield Part('a2d_sentences', 'Release/videoset.csv', file)
    elif line.strip() == 'video_id,query':
        yield Part('jhmdb_sentences', 'jhmdb_annotation.txt', file)
    elif file.suffix == '.json' and head.lstrip().startswith('[') and 'puppet_mask' in head:
        yield Part('jhmdb_sentences', 'jhmdb_sentences_samples_metadata.json', file)


def _expressions_part(file: pathlib.Path) -> Iterator[tuple[Part, set[str]]]:
    """The part that an expressions file is, and its videos; nothing if it cannot be read."""
    try:
        content = files.read_json(file, LARGEST_LIST)
    except (OSError, ValueError):
        return
    videos = content.get('videos') if isinstance(content, dict) else None
    if not isinstance(videos, dict) or not videos:
        return
    first = next(iter(videos))
    expressions = videos[first].get('expressions') if isinstance(videos[first], dict) else None
    hidden = not isinstance(expressions, dict) or not any(
        isinstance(expression, dict) and 'obj_id' in expression for expression in expressions.values()
    )
    split = file.parent.name if file.parent.name in YOUTUBE_SPLITS else ''
    if (DAVIS_VALID | DAVIS_TRAIN).intersection(videos):
        split = 'valid' if DAVIS_VALID.intersection(videos) else 'train'
        yield Part('ref_davis', f'meta_expressions/{split}/meta_expressions.json', file), set(videos)
    elif re.fullmatch('[0-9a-f]{12}', first):
        guess = 'valid' if hidden else 'train' if len(videos) > 2 * MEVIS_SPLITS['valid_u'] else 'valid_u'
        split = file.parent.name if file.parent.name in MEVIS_SPLITS else guess
        yield Part('mevis', f'{split}/{file.name if file.name in MEVIS_LISTS else MEVIS_LISTS[0]}', file), set(videos)
    elif re.fullmatch('[0-9a-f]{10}', first):
        if file.name == 'meta_expressions_challenge.json':
            yield Part('ref_youtube_vos', 'valid/meta_expressions_challenge.json', file), set()
            return
        if not hidden:
            split = 'train' if split in ('', 'test') or len(videos) > 507 else split
        elif len(videos) in (305, 507, 202):
            split = 'test' if len(videos) == 305 else 'valid'
        yield (Part('ref_youtube_vos', f'meta_expressions/{split or "valid"}/meta_expressions.json', file), set(videos))
