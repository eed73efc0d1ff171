"""Pickles of plain data, such as RefCOCO's sentences, without running what they ask for.

A pickle is a program that may call what it names. Here only the instructions that make lists, dictionaries, strings
and numbers are known, so that nothing can be called.
"""
from collections.abc import Callable
import io
import os
import pickle
import struct

from sgmg_jax import files

LARGEST = 2 ** 26  # bytes: twice RefCOCO's
MOST_CONTAINERS = 2 ** 23  # lists and dictionaries, which a byte is enough to make; RefCOCO has a twentieth of it


def _counted(load: Callable) -> Callable:
    def load_counted(self):
        self.containers += 1
        if self.containers > MOST_CONTAINERS:
            raise pickle.UnpicklingError(f'has more than {MOST_CONTAINERS:,} lists and dictionaries')
        load(self)

    return load_counted


class _PlainUnpickler(pickle._Unpickler):
    """Knows no instruction that finds a name, calls anything or makes what is costly to hash.

    It is Python's own as the one in C cannot be kept from single instructions, of which some let a few bytes
    take all memory; and its strings of Python 2 may be of any bytes, unlike those of pickletools.
    """
    containers = 0

    def _refuse(self):
        raise pickle.UnpicklingError('asks for more than lists, dictionaries, strings and numbers')

    def _set_item(self):
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][_hashable(key)] = value

    def _set_items(self):
        items = self.pop_mark()
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_hashable(key)] = value

    def _load_dict(self):
        items = self.pop_mark()
        self.append({_hashable(key): value for key, value in zip(items[::2], items[1::2], strict=True)})

    def _load_long(self):
        self.append(_whole_number(self.readline()[:-1]))

    def _load_int(self):
        line = self.readline()[:-1]
        self.append({b'00': False, b'01': True}[line] if line in (b'00', b'01') else _whole_number(line))

    dispatch = dict.fromkeys(range(256), _refuse)
    for _code in (
            pickle.PROTO, pickle.STOP, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE,
            pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1,
            pickle.FLOAT, pickle.BINFLOAT, pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING,
            pickle.UNICODE, pickle.BINUNICODE, pickle.APPEND, pickle.APPENDS,
            pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.GET, pickle.BINGET, pickle.LONG_BINGET):
        dispatch[_code[0]] = pickle._Unpickler.dispatch[_code[0]]
    for _code in pickle.MARK, pickle.EMPTY_LIST, pickle.LIST, pickle.EMPTY_DICT:
        dispatch[_code[0]] = _counted(pickle._Unpickler.dispatch[_code[0]])
    dispatch |= {pickle.DICT[0]: _counted(_load_dict), pickle.SETITEM[0]: _set_item, pickle.SETITEMS[0]: _set_items,
                 pickle.INT[0]: _load_int, pickle.LONG[0]: _load_long}


def _hashable(key):
    """A key that cannot be one of many that collide: strings hash by a secret, small numbers by their value."""
    if type(key) is str or type(key) is int and abs(key) < 2 ** 60:
        return key
    raise pickle.UnpicklingError('has keys that are neither strings nor small whole numbers')


def _whole_number(line: bytes) -> int:
    if len(line) > 40:
        raise pickle.UnpicklingError('has a number of more than 40 digits')
    return int(line.removesuffix(b'L'), 0)


def read(file: str | os.PathLike, below: str | os.PathLike | None = None):
    """What a pickle of protocol 0, 1 or 2 holds: lists, dictionaries, numbers, strings (of Python 2 as latin-1).

    Keys are strings, or whole numbers below 2 ** 60.

    Args:
        below: a folder that a link to the file must not lead out of.

    Raises:
        ValueError: for a file that is too large, damaged, or asks for anything else.
        OSError: for a file that cannot be read.
    """
    data = files.read_bytes(file, LARGEST, below)
    try:
        return _PlainUnpickler(io.BytesIO(data), encoding='latin1').load()
    # Whatever a stack in disorder may raise.
    except (pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError, EOFError, OverflowError,
            MemoryError, struct.error) as error:
        reason = files.printable(f'{type(error).__name__}: {error!s:.100}')
        raise ValueError(f'{file}: is no pickle of plain data, or damaged ({reason}). Nothing was run. Unpack it '
                         'again from the archive.') from error
