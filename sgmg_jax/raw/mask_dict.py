"""Reads MeViS's mask_dict.json in bounded memory: that of train is large, and a video needs a few objects of it.

    {"<anno_id>": [<the object's mask in the first frame>, ...], ...}      null in frames that it is absent from

The file is read once, piece by piece, to find where the masks of each object begin; they are read when their video is.
"""

import codecs
from collections.abc import Iterator, Mapping
import json
import pathlib
import re
from typing import Any, BinaryIO, NamedTuple, NoReturn

from sgmg_jax import files

LARGEST_FILE = 2**35  # bytes
LARGEST_ENTRY = 2**25  # bytes of one object's masks in all frames
MOST_ENTRIES = 2**20
PIECE = 2**22  # bytes that are read at once
BLANKS = re.compile(r'[ \t\r\n]*')
BYTE_ORDER_MARK = codecs.BOM_UTF8.decode('latin-1')


class Place(NamedTuple):
    """Where the masks of an object lie in the file, in bytes."""

    offset: int
    length: int


class Index(NamedTuple):
    """A mask_dict.json. places: by anno_id. root: of the raw data set, which no link may lead out of."""

    file: pathlib.Path
    root: pathlib.Path | None
    places: Mapping[str, Place]


def read_index(file: pathlib.Path, root: pathlib.Path | None = None) -> Index:
    """Finds the masks of every object in a mask_dict.json; parses all of it, and keeps places only.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON object of lists, has an id twice, more than MOST_ENTRIES objects or one of more than
            LARGEST_ENTRY bytes; and as `files.check_regular`.
    """
    files.check_regular(file, LARGEST_FILE, root)
    places: dict[str, Place] = {}
    for key, place in _entries(file):
        if key in places:
            raise ValueError(f'{file}: the key {files.printable(key)!r:.80} is there twice. Copy the file again.')
        if len(places) == MOST_ENTRIES:
            raise ValueError(f'{file}: has more than {MOST_ENTRIES:,} objects. Is it the right file?')
        places[key] = place
    return Index(file, root, places)


def read_entry(index: Index, anno_id: int) -> list[Any]:
    """The masks of an object, one value per frame, as they are in the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the object is not in the file, or the file has changed.
    """
    place = index.places.get(str(anno_id))
    if place is None:
        raise ValueError(
            f'{index.file}: has no key "{anno_id}", the anno_id of an object. Take masks and sentences of one edition.'
        )
    with open(index.file, 'rb') as stream:
        stream.seek(place.offset)
        data = stream.read(place.length)
    masks = files.parse_json(data, f'{index.file}: key "{anno_id}"')
    if not isinstance(masks, list):
        raise ValueError(f'{index.file}: key "{anno_id}": has changed while it was read. Start again.')
    return masks


def _entries(file: pathlib.Path) -> Iterator[tuple[str, Place]]:
    with open(file, 'rb') as stream:
        text = _Text(file, stream)
        text.mark('{')
        if text.mark('"}') == '}':
            return
        while True:
            key, _ = text.value()
            text.mark(':')
            text.mark('[')
            yield key, text.value()[1]
            if text.mark(',}') == '}':
                return
            text.mark('"')


class _Text:
    """The part of a JSON text that is being read; of what lies behind it nothing is kept.

    Latin-1 keeps one character per byte, and every mark of JSON.
    """

    def __init__(self, file: pathlib.Path, stream: BinaryIO) -> None:
        self._file, self._stream = file, stream
        self._text, self._at, self._begin, self._ended = '', 0, 0, False
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)
        self._read()
        if self._text.startswith(BYTE_ORDER_MARK):
            self._at = len(BYTE_ORDER_MARK)

    def mark(self, allowed: str) -> str:
        """Consumes the next character after blanks. Raises ValueError unless it is one of the allowed ones."""
        while (end := self._skip_blanks()) == len(self._text):
            if self._ended:
                raise self._fault('it ends too early')
            self._at = end
            self._read()
        found, self._at = self._text[end], end + 1
        if found not in allowed:
            raise self._fault(f'{found!r} in place of {" or ".join(allowed)}')
        return found

    def _skip_blanks(self) -> int:
        blanks = BLANKS.match(self._text, self._at)
        return blanks.end() if blanks else self._at

    def value(self) -> tuple[Any, Place]:
        """The value whose first character was consumed last, and where it lies. Raises ValueError if it is damaged."""
        self._at -= 1
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                break
            except RecursionError as error:
                raise self._fault('it has too many levels') from error
            except ValueError as error:  # It is damaged, or has not been read to its end.
                if self._ended or len(self._text) - self._at > LARGEST_ENTRY:
                    raise self._fault(error) from error
            self._read()
        place = Place(self._begin + self._at, end - self._at)
        self._at = end
        return value, place

    def _read(self) -> None:
        """Drops what is behind, and reads at least as much as is left: a long value is not parsed too often."""
        data = self._stream.read(max(PIECE, len(self._text) - self._at))
        self._begin, self._text = self._begin + self._at, self._text[self._at :] + data.decode('latin-1')
        self._at, self._ended = 0, not data

    def _fault(self, reason: object) -> ValueError:
        return ValueError(
            f'{self._file}: is not JSON with a list of masks per anno_id (near byte {self._begin + self._at:,}: '
            f'{files.printable(str(reason))}). Copy it again from its source.'
        )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f'{name} is no number')
