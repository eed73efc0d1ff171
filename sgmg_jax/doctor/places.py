"""Finds the parts of data sets below a folder, by their content, and says where each belongs.

A part is a characteristic folder or file ("the frames of Ref-YouTube-VOS's valid") and its place the path that it
has below the root of its data set ('valid/JPEGImages'). Packs that differ have several places for one part; a
part that lies at one of them has that place.
"""
import codecs
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
import dataclasses
import gzip
import io
import os
import pathlib
import re
import tarfile
import zipfile

from sgmg_jax import files
from sgmg_jax.doctor import common
from sgmg_jax.doctor.common import Finding, quote

LEVELS = 3  # How far below the folder parts are looked for.
MAX_FOLDERS = 20_000
ARCHIVE_HEAD = 2 ** 26  # bytes of a tar, as it unpacks, that are looked into
LARGEST_LIST = 2 ** 26  # bytes of a file of sentences
YOUTUBE_SPLITS = {'train': 3471, 'valid': 202, 'test': 305}  # Videos; the valid file also lists those of test.
DAVIS_VALID = frozenset(
    'bike-packing blackswan bmx-trees breakdance camel car-roundabout car-shadow cows dance-twirl dog dogs-jump '
    'drift-chicane drift-straight goat gold-fish horsejump-high india judo kite-surf lab-coat libby loading '
    'mbike-trick motocross-jump paragliding-launch parkour pigs scooter-black shooting soapbox'.split())
DAVIS_TRAIN = frozenset(
    'bear bmx-bumps boat boxing-fisheye breakdance-flare bus car-turn cat-girl classic-car color-run crossing '
    'dance-jump dancing disc-jockey dog-agility dog-gooses dogs-scale drift-turn drone elephant flamingo hike hockey '
    'horsejump-low kid-football kite-walk koala lady-running lindy-hop longboard lucia mallard-fly mallard-water '
    'miami-surf motocross-bumps motorbike night-race paragliding planes-water rallye rhino rollerblade schoolgirls '
    'scooter-board scooter-gray sheep skate-park snowboard soccerball stroller stunt surf swing tennis tractor-sand '
    'train tuk-tuk upside-down varanus-cage walking'.split())
DAVIS_FRAMES = ('DAVIS/JPEGImages/480p', *(f'{split}/JPEGImages{level}' for split in ('train', 'valid')
                                           for level in ('/480p', '')))
DAVIS_MASKS = ('DAVIS/Annotations_unsupervised/480p', 'DAVIS/Annotations/480p',
               *(f'{split}/{folder}' for split in ('train', 'valid')
                 for folder in ('Annotations_unsupervised/480p', 'Annotations/480p', 'Annotations')))
JHMDB_ACTIONS = frozenset(
    'brush_hair catch clap climb_stairs golf jump kick_ball pick pour pullup push run shoot_ball shoot_bow shoot_gun '
    'sit stand swing_baseball throw walk wave'.split())
REFCOCO = ('refcoco', 'refcoco+', 'refcocog')
# What archives hold: a member's path, its data set and its place ('\1' from the path).
MEMBERS = tuple((re.compile(pattern), name, place) for pattern, name, place in (
    (r'(train|valid|test)/(JPEGImages|Annotations)/[0-9a-f]{10}/', 'ref_youtube_vos', r'\1/\2'),
    (r'meta_expressions/(train|valid|test)/meta_expressions\.json$', 'ref_youtube_vos',
     r'meta_expressions/\1/meta_expressions.json'),
    (r'(DAVIS/(?:JPEGImages|Annotations_unsupervised|Annotations)/480p)/', 'ref_davis', r'\1'),
    (r'DAVIS/ImageSets/2017/(train|val)\.txt$', 'ref_davis', r'DAVIS/ImageSets/2017/\1.txt'),
    (r'(davis_text_annotations/Davis17_annot[12](?:_full_video)?\.txt)$', 'ref_davis', r'\1'),
    (r'(Release/videoset\.csv)$', 'a2d_sentences', r'\1'),
    (r'(Release/(?:CLIPS320|clips320H))/', 'a2d_sentences', r'\1'),
    (r'(text_annotations/a2d_(?:annotation|missed_videos)\.txt)$', 'a2d_sentences', r'\1'),
    (r'(text_annotations/a2d_annotation_with_instances)/', 'a2d_sentences', r'\1'),
    (r'(Rename_Images|puppet_mask)/', 'jhmdb_sentences', r'\1'),
    (r'(jhmdb_sentences_samples_metadata\.json)$', 'jhmdb_sentences', r'\1'),
    (r'train2014/COCO_train2014_', 'refcoco', 'train2014'),
    (r'(refcoco[+g]?)/(?:refs\(\w+\)\.p|instances\.json)$', 'refcoco', r'\1')))


@dataclasses.dataclass(frozen=True)
class Part:
    """Something that belongs to a data set, the place where it belongs, and where it is."""
    name: str
    place: str
    path: pathlib.Path

    @property
    def root(self) -> pathlib.Path | None:
        """The root of its data set, if it lies where it belongs."""
        levels = len(pathlib.PurePosixPath(self.place).parts)
        return self.path.parents[levels - 1] if _ends(self.path, self.place) else None


@dataclasses.dataclass
class Survey:
    """What there is below a folder. junk: of macOS. dead: links to nothing. closed: folders that cannot be read, and
    why. cut: not everything was looked at."""
    parts: list[Part]
    archives: list[pathlib.Path]
    junk: list[pathlib.Path]
    dead: list[pathlib.Path]
    closed: list[tuple[pathlib.Path, str]]
    cut: bool


def survey(folder: pathlib.Path, leave_out: pathlib.Path | None = None, max_folders: int = MAX_FOLDERS) -> Survey:
    """Looks at a folder and at `LEVELS` levels below it, nearest first, and does not look inside of parts."""
    found = Survey([], [], [], [], [], False)
    folders, expression_files = [], []
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
        expression_files += [path / name for name in others if name.endswith('.json')
                             and name.startswith('meta_expressions')]
        found.archives += [path / name for name in others if name.lower().endswith(('.zip', '.tar', '.tgz', '.tar.gz'))
                           and os.path.isfile(path / name)]
        found.dead += [path / name for name in others[:1000]  # Not of the many files of a part: its check finds them.
                       if os.path.islink(path / name) and not os.path.exists(path / name)]
        if (path / '__MACOSX').is_dir():
            found.junk.append(path / '__MACOSX')
        if depth < LEVELS and not any(_folder_parts(path, names, others, {})):
            queue += [(path / name, depth + 1) for name in names
                      if path / name != leave_out and not name.startswith('.')]
    known = defaultdict(set)
    for file in expression_files:
        for part, videos in _expressions_part(file):
            found.parts.append(part)
            if part.name == 'ref_youtube_vos':
                known[part.place.split('/')[1]] |= videos
    for path, names, others in folders:
        found.parts += _folder_parts(path, names, others, known)
        for name in others:
            if name.endswith(('.txt', '.csv', '.json')):
                found.parts += _file_parts(path / name)
    return found


def find_root(parts: list[Part], folder: pathlib.Path) -> pathlib.Path:
    """The root below which most parts are where they belong; `folder` itself if none is."""
    votes = Counter()
    for part in parts:
        root = part.root
        # An archive unpacked a level too deep: its parts lie in train/train, not in a data set named train.
        while root and root.name in ('train', 'valid', 'test', 'meta_expressions', 'Release', 'text_annotations',
                                     'davis_text_annotations', 'images'):
            root = root.parent
        if root and (folder in (root, *root.parents) or root in folder.parents[:LEVELS]):
            votes[root] += 1
    if not votes:
        return folder
    return min(votes, key=lambda root: (-votes[root], len(root.parts), str(root)))


def place_parts(parts: list[Part], root: pathlib.Path) -> tuple[dict[str, pathlib.Path], list[Finding]]:
    """Chooses one path for each place, and says what lies elsewhere."""
    by_place, findings, found = defaultdict(list), [], {}
    for part in dict.fromkeys(parts):
        by_place[part.place].append(part)
    copies = Counter(part.root for part in set(parts) if part.root not in (None, root))
    for place, candidates in by_place.items():
        right = root / place
        paths = [part.path for part in candidates]
        found[place] = right if right in paths else paths[0]
        if found[place] != right:
            findings.append(Finding('wrong', f'lies in the wrong place; it belongs at {right}', str(found[place]),
                                    move(found[place], right)))
        findings += [Finding('note', f'another copy of {place}, which is not used', str(part.path))
                     for part in candidates if part.path != found[place] and copies[part.root] < 2]
    findings += [Finding('note', f'another copy of {number} parts, which is not examined', str(other),
                         f'python -m sgmg_jax.doctor {quote(other)}')
                 for other, number in copies.items() if number > 1]
    return found, findings


def move(source: pathlib.Path, target: pathlib.Path) -> str:
    """The command that moves `source` to `target`, also out of a folder that is in its way."""
    if target in source.parents:
        aside = target.with_name(target.name + '.moved')
        inner = ' '.join(quote(path) for path in (source, *source.parents)[1:source.parents.index(target) + 2])
        return f'mv {quote(source)} {quote(aside)} && rmdir {inner} && mv {quote(aside)} {quote(target)}'
    first = ''
    if target.is_dir():
        first = f'rmdir {quote(target)} && '
    elif not target.parent.exists():
        first = f'mkdir -p {quote(target.parent)} && '
    return f'{first}mv {quote(source)} {quote(target)}'


def look_into(archive: pathlib.Path) -> tuple[set[tuple[str, str, str]], list[str], str]:
    """What an archive holds: (data set, place, path in front of it), the archives in it, and what is wrong with it.

    Of a tar only the first members are read, as its list is spread over all of it.
    """
    try:
        if archive.suffix.lower() == '.zip':
            with zipfile.ZipFile(archive) as opened:
                members = opened.namelist()
        else:
            members = _first_of_tar(archive)
    except Exception as error:  # Damaged archives make zipfile raise what comes along.
        return set(), [], common.reason(error, archive)
    holds, seen = set(), set()
    for member in members:
        head = '/'.join(member.split('/')[:5])  # One of the many frames of a folder is enough.
        key = os.path.dirname(head), os.path.splitext(head)[1]
        if '__MACOSX' in member or (key in seen and not head.endswith(('.json', '.txt', '.csv'))):
            continue
        seen.add(key)
        for pattern, name, place in MEMBERS:
            match = pattern.search(member)
            if match and (match.start() == 0 or member[match.start() - 1] == '/'):
                holds.add((name, match.expand(place), member[:match.start()]))
    return holds, [member for member in members if member.endswith('.zip') and '__MACOSX' not in member], ''


def unpack(archive: pathlib.Path, root: pathlib.Path) -> str:
    """The command that unpacks an archive."""
    if archive.suffix.lower() == '.zip':
        return f'unzip -q {quote(archive)} -d {quote(root)}'
    return f'tar -xf {quote(archive)} -C {quote(root)}'


def _first_of_tar(archive: pathlib.Path) -> list[str]:
    """Names of the first members, of at most 100."""
    packed = archive.name.lower().endswith(('.tgz', '.gz'))
    names = []
    with (gzip.open if packed else open)(archive, 'rb') as stream:
        head = io.BytesIO(stream.read(ARCHIVE_HEAD))
    with tarfile.open(fileobj=head, mode='r:') as opened:
        try:
            while len(names) < 100 and (member := opened.next()):
                names.append(member.name)
        except tarfile.ReadError:  # The head ends inside of a member.
            if not names or len(head.getbuffer()) < ARCHIVE_HEAD:
                raise
    return names


def _ends(path: pathlib.Path, place: str) -> bool:
    parts = pathlib.PurePosixPath(place).parts
    return path.parts[-len(parts):] == parts


def _folder_parts(path: pathlib.Path, folders: list[str], others: list[str],
                  known: Mapping[str, set[str]]) -> Iterator[Part]:
    """The parts that a folder with these folders and files in it is."""
    if 'dataset_info.json' in others:
        yield Part('records', '.', path)
    if any(name.startswith('COCO_train2014_') for name in others):
        yield Part('refcoco', 'images/train2014' if _ends(path, 'images/train2014') else 'train2014', path)
    if any(re.fullmatch(r'.{11}\.mp4', name, re.IGNORECASE) for name in others):
        yield Part('a2d_sentences', f'Release/{"clips320H" if path.name == "clips320H" else "CLIPS320"}', path)
    if any(re.fullmatch(r'refs\(\w+\)\.p|instances_refcoco[+g]?_\w+\.json', name) for name in others):
        yield Part('refcoco', _refcoco_name(path, others), path)
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
                name.lower().endswith('.h5') for name in common.listing(path / video)[1]):
            yield Part('a2d_sentences', 'text_annotations/a2d_annotation_with_instances', path)
            return


def _kind_of_videos(path: pathlib.Path, videos: list[str]) -> str:
    """'JPEGImages' or 'Annotations', by what the folders of videos hold; '' for neither."""
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


def _davis_place(path: pathlib.Path, kind: str, videos: set[str]) -> str:
    splits = [split for split, names in (('valid', DAVIS_VALID), ('train', DAVIS_TRAIN)) if names & videos]
    for place in DAVIS_FRAMES if kind == 'JPEGImages' else DAVIS_MASKS:
        if _ends(path, place) and (place.startswith('DAVIS') or place.split('/')[0] in splits):
            return place
    if len(splits) == 1 and path.name != '480p':  # A part of the original downloads may hold one split, too.
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
        return 'refcocog'  # Google's split of the others always comes with that of UNC.
    # Words of location were forbidden in RefCOCO+, and every eighth sentence of RefCOCO has one.
    return 'refcoco' if 50 * text.count(b'left') > text.count(b'sent_id') else 'refcoco+'


def _file_parts(file: pathlib.Path) -> Iterator[Part]:
    """The parts that a file of text is, by its first bytes."""
    try:
        files.check_regular(file)
        with open(file, 'rb') as stream:
            head = stream.read(4096)
    except (OSError, ValueError):
        return
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    head = head.removeprefix(codecs.BOM_UTF8).decode('utf-16' if wide else 'latin-1', errors='ignore')
    line = head.splitlines()[0] if head.strip() else ''
    if re.fullmatch(r'Davis17_annot[12](_full_video)?\.txt', file.name):
        yield Part('ref_davis', f'davis_text_annotations/{file.name}', file)
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
    """The part that an expressions file is, with its videos; nothing where it cannot be read."""
    try:
        videos = files.read_json(file, LARGEST_LIST)['videos']
        first = next(iter(videos))
        hidden = not any('obj_id' in expression for expression in videos[first]['expressions'].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return
    split = file.parent.name if file.parent.name in YOUTUBE_SPLITS else ''
    if (DAVIS_VALID | DAVIS_TRAIN).intersection(videos):
        split = 'valid' if DAVIS_VALID.intersection(videos) else 'train'
        yield Part('ref_davis', f'meta_expressions/{split}/meta_expressions.json', file), set(videos)
    elif re.fullmatch('[0-9a-f]{10}', first):
        if file.name == 'meta_expressions_challenge.json':
            yield Part('ref_youtube_vos', 'valid/meta_expressions_challenge.json', file), set()
            return
        if not hidden:
            split = 'train' if split in ('', 'test') or len(videos) > 507 else split
        elif len(videos) in (305, 507, 202):
            split = 'test' if len(videos) == 305 else 'valid'
        yield (Part('ref_youtube_vos', f'meta_expressions/{split or "valid"}/meta_expressions.json', file),
               set(videos))
