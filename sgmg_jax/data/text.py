"""Sentences to byte-pair tokens, as RoBERTa reads them.

Axis letters: N sentences, L tokens.
"""
from collections.abc import Iterable, Sequence
import os
import pathlib

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from sgmg_jax import files, types

SPECIALS = {'<s>': 0, '<pad>': 1, '</s>': 2}
PAD = SPECIALS['<pad>']


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """Reads RoBERTa's tokenizer, or one trained by `train_tokenizer`.

    Args:
        path: a tokenizer.json, or a folder with vocab.json and merges.txt, or with tokenizer.json.

    Raises:
        FileNotFoundError: when neither is there.
        ValueError: when the file is no tokenizer, or its special tokens are not RoBERTa's.
    """
    path = pathlib.Path(path)
    vocab, merges, whole = path / 'vocab.json', path / 'merges.txt', path / 'tokenizer.json'
    try:
        if path.is_file():
            tokenizer = Tokenizer.from_file(os.fspath(path))
        elif vocab.exists() and merges.exists():
            tokenizer = _assemble(models.BPE.from_file(os.fspath(vocab), os.fspath(merges)))
        elif whole.exists():
            tokenizer = Tokenizer.from_file(os.fspath(whole))
        else:
            raise FileNotFoundError(f'{path}: no tokenizer there. It must be a tokenizer.json, or a folder '
                                    'with vocab.json and merges.txt, as roberta-base from Hugging '
                                    'Face has them.')
    except FileNotFoundError:
        raise
    except Exception as error:  # The library raises bare Exception for whatever is wrong in a file.
        raise ValueError(f'{path}: cannot be read as a byte-pair tokenizer ({error}). '
                         'Copy it again.') from error
    for token, number in SPECIALS.items():
        if tokenizer.token_to_id(token) != number:
            raise ValueError(f'{path}: token {token!r} has the id {tokenizer.token_to_id(token)}, RoBERTa '
                             f'has {number}. Take the tokenizer of roberta-base, or train one with '
                             'train_tokenizer.')
    # A file may carry settings of its last use; a silently shortened sentence would be wrong.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def train_tokenizer(sentences: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level byte-pair tokenizer learned from sentences, for runs without pretrained weights.

    <s>, <pad>, </s>, <unk> have the ids 0 to 3, as RoBERTa's; the 256 bytes are always in it, so no
    word is unknown. The vocabulary may stay below `vocab_size` when the sentences are few.

    Raises:
        ValueError: when `vocab_size` is below 260, the specials and the bytes.
    """
    if vocab_size < 260:
        raise ValueError(f'vocab_size={vocab_size}: must be at least 260, for 4 special tokens and 256 '
                         'bytes.')
    tokenizer = _assemble(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[*SPECIALS, '<unk>'], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(map(normalise, sentences), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: str | os.PathLike) -> pathlib.Path:
    """Writes <folder>/tokenizer.json, whole or not at all, and returns its path."""
    folder = pathlib.Path(folder)
    with files.replacing(folder / 'tokenizer.json') as partial:
        tokenizer.save(os.fspath(partial))
    return folder / 'tokenizer.json'


def normalise(sentence: str) -> str:
    """Lower case, single spaces: what the released code does to the sentences it trains on."""
    return ' '.join(sentence.lower().split())


def encode(tokenizer: Tokenizer, sentences: Sequence[str], length: int, count: int | None = None) -> types.Text:
    """Tokens [N L] int32 with <s> and </s> around each sentence, padded to L = `length`.

    N is `count`, filled up with sentences without a valid token; by default as many as there are sentences.

    Raises:
        ValueError: for an empty sentence, and for one of more than `length` tokens. Nothing is ever
            cut: the word that tells two objects apart may be the last.
    """
    tokens = np.full((count or len(sentences), length), PAD, np.int32)
    valid = np.zeros(tokens.shape, bool)
    for row, sentence in enumerate(sentences):
        text = normalise(sentence)
        if not text:
            raise ValueError(f'sentence {row} of {len(sentences)} is empty ({sentence!r}). '
                             'Say what to look for.')
        ids = tokenizer.encode(text).ids
        if len(ids) > length:
            raise ValueError(f'the sentence {sentence!r} has {len(ids)} tokens with <s> and </s>, but the '
                             f'config says text_length={length}. Raise text_length to at least {len(ids)}.')
        tokens[row, :len(ids)] = ids
        valid[row, :len(ids)] = True
    return types.Text(tokens=tokens, valid=valid)


def _assemble(model: models.BPE) -> Tokenizer:
    """RoBERTa's pipeline around a byte-pair model."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ('</s>', SPECIALS['</s>']), ('<s>', SPECIALS['<s>']), trim_offsets=True, add_prefix_space=False)
    present = [token for token in (*SPECIALS, '<unk>') if model.token_to_id(token) is not None]
    tokenizer.add_special_tokens(present)
    if model.token_to_id('<mask>') is not None:
        tokenizer.add_special_tokens([AddedToken('<mask>', lstrip=True)])
    return tokenizer
