"""Pickles of plain data, such as RefCOCO's sentences, without running what they ask for.

A pickle is a program that may call what it names. Here only the instructions that make lists, dictionaries, strings
and numbers are known, so that nothing can be called.
"""
import io
import os
import pathlib
import pickle
import struct

LARGEST = 2 ** 27  # bytes: several times RefCOCO's. What a pickle makes has up to seventy times its size in memory.


class _PlainUnpickler(pickle._Unpickler):
    """Knows no instruction that finds a name, calls anything or makes what is costly to hash.

    It is Python's own as the one in C cannot be kept from single instructions, of which some let a few bytes
    take all memory; and its strings of Python 2 may be of any bytes, unlike those of pickletools.
    """
    def _refuse(self):
        raise pickle.UnpicklingError('asks for more than lists, dictionaries, strings and numbers')

    dispatch = dict.fromkeys(range(256), _refuse) | {
        code[0]: pickle._Unpickler.dispatch[code[0]] for code in (
            pickle.PROTO, pickle.MARK, pickle.STOP, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE,
            pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG, pickle.LONG1,
            pickle.FLOAT, pickle.BINFLOAT, pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING,
            pickle.UNICODE, pickle.BINUNICODE, pickle.EMPTY_LIST, pickle.LIST, pickle.APPEND, pickle.APPENDS,
            pickle.EMPTY_DICT, pickle.DICT, pickle.SETITEM, pickle.SETITEMS,
            pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.GET, pickle.BINGET, pickle.LONG_BINGET)}


def read(file: str | os.PathLike):
    """What a pickle of protocol 0, 1 or 2 holds: lists, dictionaries, numbers, strings (of Python 2 as latin-1).

    Raises:
        ValueError: for a file that is too large, damaged, or asks for anything else.
        OSError: for a file that cannot be read.
    """
    file = pathlib.Path(file)
    if file.stat().st_size > LARGEST:
        raise ValueError(f'{file}: has {file.stat().st_size} bytes, {LARGEST} at most are read. Unpack it again from '
                         'the archive.')
    try:
        return _PlainUnpickler(io.BytesIO(file.read_bytes()), encoding='latin1').load()
    # Whatever a stack in disorder may raise.
    except (pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError, EOFError, OverflowError,
            struct.error) as error:
        raise ValueError(f'{file}: is no pickle of plain data, or damaged ({type(error).__name__}: {error!s:.100}). '
                         'Nothing was run. Unpack it again from the archive.') from error
