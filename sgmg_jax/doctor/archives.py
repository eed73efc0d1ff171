"""Looks into archives of data sets without unpacking them."""

import gzip
import io
import os
import pathlib
import re
import tarfile
import zipfile

from sgmg_jax.doctor import common
from sgmg_jax.doctor.common import quote

ARCHIVE_HEAD = 2**26  # unpacked bytes of a tar that are read
# Parts inside archives: a pattern of a member's path, the data set and the place ('\1' from the path).
MEMBERS = tuple(
    (re.compile(pattern), name, place)
    for pattern, name, place in (
        (r'(train|valid|test)/(JPEGImages|Annotations)/[0-9a-f]{10}/', 'ref_youtube_vos', r'\1/\2'),
        (
            r'meta_expressions/(train|valid|test)/meta_expressions\.json$',
            'ref_youtube_vos',
            r'meta_expressions/\1/meta_expressions.json',
        ),
        (r'(train|valid_u|valid)/JPEGImages/[0-9a-f]{12}/', 'mevis', r'\1/JPEGImages'),
        (r'(train|valid_u)/mask_dict\.json$', 'mevis', r'\1/mask_dict.json'),
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
        (r'(refcoco[+g]?)/(?:refs\(\w+\)\.p|instances\.json)$', 'refcoco', r'\1'),
    )
)


def look_into(archive: pathlib.Path) -> tuple[set[tuple[str, str, str]], list[str], str]:
    """What an archive holds: (data set, place, path in front of it), the archives in it, and its fault.

    Of a tar only the first members are read, because it has no table of contents.
    """
    try:
        if archive.suffix.lower() == '.zip':
            with zipfile.ZipFile(archive) as opened:
                members = opened.namelist()
        else:
            members = _first_of_tar(archive)
    except Exception as error:  # On damaged archives zipfile raises various exceptions.
        return set(), [], common.reason(error, archive)
    holds: set[tuple[str, str, str]] = set()
    seen: set[tuple[str, str]] = set()
    for member in members:
        head = '/'.join(member.split('/')[:5])  # One of a folder's many frames is enough.
        key = os.path.dirname(head), os.path.splitext(head)[1]
        if '__MACOSX' in member or (key in seen and not head.endswith(('.json', '.txt', '.csv'))):
            continue
        seen.add(key)
        for pattern, name, place in MEMBERS:
            match = pattern.search(member)
            if match and (match.start() == 0 or member[match.start() - 1] == '/'):
                holds.add((name, match.expand(place), member[: match.start()]))
    return holds, [member for member in members if member.endswith('.zip') and '__MACOSX' not in member], ''


def unpack(archive: pathlib.Path, root: pathlib.Path) -> str:
    """The command that unpacks an archive."""
    if archive.suffix.lower() == '.zip':
        return f'unzip -q {quote(archive)} -d {quote(root)}'
    return f'tar -xf {quote(archive)} -C {quote(root)}'


def _first_of_tar(archive: pathlib.Path) -> list[str]:
    """Names of the first members, at most 100."""
    packed = archive.name.lower().endswith(('.tgz', '.gz'))
    names: list[str] = []
    with (gzip.open if packed else open)(archive, 'rb') as stream:
        head = io.BytesIO(stream.read(ARCHIVE_HEAD))
    with tarfile.open(fileobj=head, mode='r:') as opened:
        try:
            while len(names) < 100 and (member := opened.next()):
                names.append(member.name)
        except tarfile.ReadError:  # The head ends inside a member.
            if not names or len(head.getbuffer()) < ARCHIVE_HEAD:
                raise
    return names
