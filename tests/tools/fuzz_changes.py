"""The changes that fuzz.py makes to an input: one random change to one file or folder."""

import collections
import copy
import io
import json
import os
import pathlib
import pickle
import random
import re
import shutil
import struct
from typing import NamedTuple
import zipfile
import zlib


class Change(NamedTuple):
    """what: a description. names: a message must contain one of these."""

    what: str
    names: set[str]


LONG, HUGE, NESTED, DEEP = '@long', '@huge', '@nested', '@deep'  # placeholders for what no library writes
RAW = {
    f'"{LONG}"': f'"{"a" * 10**6}"',
    f'"{HUGE}"': '9' * 5000,
    **{f'"{name}"': '[' * levels + ']' * levels for name, levels in ((NESTED, 950), (DEEP, 10**5))},
}
HOSTILE = (
    None,
    True,
    -1,
    0,
    0.5,
    255,
    2**31,
    2**63,
    10**30,
    -(10**300),
    1e308,
    float('nan'),
    float('inf'),
    '',
    ' ',
    '0',
    '-1',
    'a',
    '../x',
    '/etc/passwd',
    '.x',
    'x/../..',
    '\x1b[2J',
    '\ud800',
    '\x00',
    'a\nb',
    '\u202e',
    'é' * 200,
    LONG,
    HUGE,
    NESTED,
    DEEP,
    [],
    {},
    [[]],
    [None],
    ['a'],
    {'a': 1},
    [[1e400]],
    [[[[[[[[[1]]]]]]]]],
)


def change_bytes(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    data, done = bytearray(data), []
    for _ in range(rng.choice((1, 1, 1, 3, 20))):
        at = int(len(data) * rng.random() ** rng.choice((1, 4)))  # headers more often
        at = len(data) - at if rng.random() < 0.2 else at
        length = rng.choice((1, 2, 4, 8, 100, 5000))
        how = rng.choice(('flip', 'put', 'delete', 'insert', 'cut', 'repeat', 'splice'))
        if how == 'flip' and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif how == 'cut':
            del data[at:]
        else:
            source = rng.randrange(len(data) + 1)
            new = {
                'put': rng.choice((rng.randbytes(length), b'\xff' * length, bytes(length))),
                'delete': b'',
                'insert': rng.randbytes(length),
                'repeat': bytes(data[at : at + length]) * 2,
                'splice': bytes(data[source : source + length]),
            }.get(how, b'')
            data[at : at if how == 'insert' else at + length] = new
        done.append(f'{how} {at}:{length}')
    return bytes(data), ', '.join(done)


def change_tree(content, rng: random.Random) -> str:
    """Changes a value somewhere in nested lists and dictionaries; returns a description."""
    path, node = [], content
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        if not keys:
            return 'nothing'
        key = rng.choice(keys)
        path.append(key)
        if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.15:
            break
        node = node[key]
    how = rng.choice(('replace', 'replace', 'replace', 'drop', 'double'))
    if how == 'replace':
        node[key] = copy.deepcopy(rng.choice(HOSTILE))
        how = f'replace by {node[key]!a:.40}'
    elif how == 'drop':
        del node[key]
    elif isinstance(node, dict):
        name = rng.choice(('x', '', '../x', '\x1b[2J', f'{key} ', LONG))
        node[name], how = copy.deepcopy(node[key]), f'double as {name!a}'
    else:
        node.insert(key, copy.deepcopy(node[key]))
    return f'{".".join(map(str, path))}: {how}'


def change_structure(name: str, data: bytes, rng: random.Random) -> tuple[bytes, str] | None:
    """A change within the format of a file; None for formats without such changes."""
    suffix = pathlib.PurePath(name).suffix
    if zipfile.is_zipfile(io.BytesIO(data)):
        return _change_zip(data, rng)
    if suffix in ('.json', '.p', '.safetensors'):
        size = 8 + int.from_bytes(data[:8], 'little') if suffix == '.safetensors' else 0
        content = pickle.loads(data) if suffix == '.p' else json.loads(data[8 * bool(size) : size or None])
        if not isinstance(content, dict | list):
            return None
        what = change_tree(content, rng)
        if suffix == '.p':
            return pickle.dumps(content, rng.choice((0, 2, 4))), what
        text = json.dumps(content)
        for stand_in, raw in RAW.items():
            text = text.replace(stand_in, raw)
        if rng.random() < 0.1:
            text, what = re.sub(r'("[^"]*"): ', r'\1: 0, \1: ', text, count=1), 'a key is there twice'
        return (struct.pack('<q', len(text)) + text.encode() + data[size:] if size else text.encode()), what
    if suffix in ('.txt', '.csv'):
        lines = data.split(b'\n')
        number, value = rng.randrange(len(lines)), rng.choice([x for x in HOSTILE if isinstance(x, str | int)])
        fields = re.split(rb'([, "]+)', lines[number])
        value = RAW.get(f'"{value}"', str(value)).replace('"', '')
        fields[rng.randrange(0, len(fields), 2)] = value.encode(errors='surrogatepass')
        new = b''.join(fields)
        lines[number : number + 1] = rng.choice(([new], [new], [], [lines[number]] * 2))
        return b'\n'.join(lines), f'line {number}: {value!a:.40} or dropped or doubled'
    if data.startswith(b'\x89PNG'):
        header = bytearray(data[12:29])
        place, value = rng.choice(((4, 4), (8, 4), (12, 1), (13, 1), (16, 1))), rng.choice((0, 1, 3, 8, 16, 77, 9**5))
        header[place[0] : sum(place)] = (value % 256 ** place[1]).to_bytes(place[1], 'big')
        return data[:12] + header + struct.pack('>I', zlib.crc32(header)) + data[33:], f'PNG header {place}: {value}'
    return None


def _change_zip(data, rng):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    number = rng.choice((0, rng.randrange(len(members))))
    name, content = members[number]
    how = rng.choice(('content', 'content', 'content', 'name', 'drop', 'double', 'add'))
    if how == 'content':
        inner = change_structure(name, content, rng) if rng.random() < 0.5 else None
        members[number] = name, (inner or change_bytes(content, rng))[0]
    elif how == 'name':
        members[number] = rng.choice(('../x', '/x', 'x', name + '/', '\x1b[2J', 'x' * 300, name.upper())), content
    elif how == 'drop':
        del members[number]
    else:
        members.append((name if how == 'double' else rng.choice(('__MACOSX/._x', 'x.json', '.DS_Store')), content))
    out, method = io.BytesIO(), rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(out, 'w', method) as archive:
        for member in members:
            archive.writestr(*member)
    return out.getvalue(), f'member {name}: {how}'


def change_file(path: pathlib.Path, outside: pathlib.Path, rng: random.Random) -> str:
    """Changes the file or folder at a path."""
    how = rng.choice(
        (
            'remove',
            'empty',
            'pipe',
            'outside',
            'nowhere',
            'itself',
            'junk',
            'deeper',
            'rename',
            'upper',
            'twice',
            'folder',
            *(() if path.is_dir() else ('bom', 'crlf')),
        )
    )
    if how == 'junk':
        for name in ('._' + path.name, '.DS_Store', 'Thumbs.db'):
            (path.parent / name).write_bytes(b'\x00\x05\x16\x07')
    elif how == 'deeper':
        path.rename(outside)
        (path / path.name).parent.mkdir()
        outside.rename(path / path.name)
    elif how == 'rename':
        path.rename(path.with_name(rng.choice(('x', '\udcff', '\x1b[2J', 'a b', '-x', 'a\nb'))))
    elif how in ('upper', 'twice'):
        new = path.with_name(path.stem.upper() + path.suffix.upper() if how == 'upper' else '0' + path.name)
        path.rename(new) if how == 'upper' else (shutil.copytree if path.is_dir() else shutil.copy)(path, new)
    elif how in ('bom', 'crlf'):
        data = path.read_bytes()
        path.write_bytes(b'\xef\xbb\xbf' + data if how == 'bom' else data.replace(b'\n', b'\r\n'))
    else:
        path.rename(outside)
        {
            'empty': path.touch,
            'folder': path.mkdir,
            'pipe': lambda: os.mkfifo(path),
            'outside': lambda: path.symlink_to(outside),
            'nowhere': lambda: path.symlink_to('nowhere'),
            'itself': lambda: path.symlink_to(path.name),
        }.get(how, lambda: None)()
    return how


def change(root: pathlib.Path, outside: pathlib.Path, rng: random.Random) -> Change:
    """Changes one file or folder in a folder; all kinds are equally likely."""
    kinds = collections.defaultdict(list)
    for path in sorted(root.rglob('*')):
        parts = path.relative_to(root).parts
        kinds[path.is_dir(), len(parts), path.suffix or path.name, parts[0]].append(path)
    kinds = [kinds[key] for key in sorted(kinds) if not key[0] or rng.random() < 0.3] or list(kinds.values())
    path = rng.choice(rng.choice(kinds))
    names = {path.name, path.stem, path.parent.name if path.parent != root or path.is_dir() else path.name}
    what, chance = '', rng.random()
    if path.is_file() and chance < 0.75:
        data = path.read_bytes()
        new, what = chance < 0.45 and change_structure(path.name, data, rng) or change_bytes(data, rng)
        path.write_bytes(new)
    else:
        what = change_file(path, outside, rng)
    return Change(f'{path.relative_to(root)}: {what}', names)
