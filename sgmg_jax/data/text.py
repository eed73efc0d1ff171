"""Tokenises sentences into RoBERTa's byte pairs.

Axis letters: N sentences, L tokens.
"""

from collections.abc import Iterable, Sequence
import os
import pathlib
import re
import typing

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from sgmg_jax import files, types

SPECIALS = {'<s>': 0, '<pad>': 1, '</s>': 2}
PAD = SPECIALS['<pad>']
LONGEST = 10_000  # characters of a sentence
LARGEST = 2**24  # bytes of a tokenizer's file; RoBERTa's has a twelfth of it
MOST_TOKENS = 2**20
_CONTROLS = re.compile(r'[\x00-\x1f\x7f\ud800-\udfff]')  # and lone surrogates


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """Loads RoBERTa's tokenizer, or one trained by `train_tokenizer`.

    Tokens, merges and added tokens come from the file; splitting into words and framing are RoBERTa's.

    Args:
        path: a tokenizer.json, or a folder with vocab.json and merges.txt, or with tokenizer.json.

    Raises:
        FileNotFoundError: none of these exist.
        ValueError: naming the file: it is damaged or another kind of tokenizer, or has other special tokens.
    """
    path = pathlib.Path(path)
    vocab, merges, whole = path / 'vocab.json', path / 'merges.txt', path / 'tokenizer.json'
    if path.is_dir() and vocab.exists() and merges.exists():
        pairs = [
            line.split(' ')
            for line in files.read_text(merges, largest=LARGEST).split('\n')
            if line and not line.startswith('#version')
        ]
        tokenizer = _assemble(files.read_json(vocab, LARGEST), pairs, [], vocab, merges)
    elif path.is_dir() and whole.exists() or path.exists() and not path.is_dir():
        file = whole if path.is_dir() else path
        tokenizer = _from_json(files.read_json(file, LARGEST), file)
    else:
        raise FileNotFoundError(
            f'{path}: no tokenizer there. It must be a tokenizer.json, or a folder with vocab.json '
            'and merges.txt, as roberta-base from Hugging Face has them.'
        )
    for token, number in SPECIALS.items():
        if tokenizer.token_to_id(token) != number:
            raise ValueError(
                f'{path}: token {token!r} has the id {tokenizer.token_to_id(token)}, must be {number} '
                'as in RoBERTa. Use the tokenizer of roberta-base, or train one with train_tokenizer.'
            )
    return tokenizer


@typing.no_type_check  # checks its own arguments
def train_tokenizer(sentences: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains a byte-level byte-pair tokenizer, for runs without pretrained weights.

    <s>, <pad>, </s>, <unk> have the ids 0 to 3, as in RoBERTa. All 256 bytes are tokens, so no word is unknown. With
    few sentences the vocabulary may stay below `vocab_size`.

    Raises:
        ValueError: `vocab_size` is below 260 (special tokens and bytes) or above MOST_TOKENS, or `check_sentence`
            refuses a sentence.
        TypeError: a sentence is not a string.
    """
    if not 260 <= vocab_size <= MOST_TOKENS:
        raise ValueError(
            f'vocab_size={vocab_size}: must be at least 260, for 4 special tokens and 256 bytes, and at '
            f'most {MOST_TOKENS:,}.'
        )
    sentences = list(sentences)
    for number, sentence in enumerate(sentences):
        check_sentence(sentence, f'sentence {number} of {len(sentences)}')
    tokenizer = _roberta(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIALS, '<unk>'],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(map(normalise, sentences), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: str | os.PathLike) -> pathlib.Path:
    """Writes <folder>/tokenizer.json atomically and returns its path."""
    folder = pathlib.Path(folder)
    with files.replacing(folder / 'tokenizer.json') as partial:
        tokenizer.save(os.fspath(partial))
    return folder / 'tokenizer.json'


def normalise(sentence: str) -> str:
    """Lower case, single spaces: as the released code normalises its training sentences."""
    return ' '.join(sentence.lower().split())


def check_sentence(sentence: object, where: str) -> None:
    """Raises TypeError unless `sentence` is a string; ValueError if it is empty, longer than LONGEST or not text.

    Args:
        where: which sentence it is, for the message.
    """
    if not isinstance(sentence, str):
        raise TypeError(f'{where}: must be a string, is {sentence!r:.100}.')
    if len(sentence) > LONGEST:
        raise ValueError(
            f'{where}: has {len(sentence):,} characters, at most {LONGEST:,} are read ({sentence!r:.50}). Shorten it.'
        )
    wrong = _CONTROLS.search(' '.join(sentence.split()))
    if wrong:
        raise ValueError(f'{where}: has the character {wrong[0]!r}, which is not text ({sentence!r:.100}). Remove it.')
    if not sentence.strip():
        raise ValueError(f'{where} is empty ({sentence!r:.100}). Describe an object.')


@typing.no_type_check  # checks its own arguments
def encode(tokenizer: Tokenizer, sentences: Sequence[str], length: int, count: int | None = None) -> types.Text:
    """int32 tokens with <s> and </s> around each sentence, padded to L = `length`.

    N is `count` (default: the number of sentences); padding sentences have no valid token.

    Raises:
        TypeError, ValueError: `check_sentence` refuses a sentence; names its index.
        ValueError: a sentence has more than `length` tokens. Sentences are never truncated: the word that tells two
            objects apart may be the last.
    """
    if isinstance(sentences, str | bytes):
        raise TypeError(f'sentences = {sentences!r:.100}: must be a list of strings.')
    tokens = np.full((len(sentences) if count is None else count, length), PAD, np.int32)
    valid = np.zeros(tokens.shape, bool)
    for row, sentence in enumerate(sentences):
        check_sentence(sentence, f'sentence {row} of {len(sentences)}')
        ids = tokenizer.encode(normalise(sentence)).ids
        if len(ids) > length:
            raise ValueError(
                f'the sentence {sentence!r:.200} has {len(ids)} tokens with <s> and </s>, but the '
                f'config sets text_length={length}. Raise text_length to at least {len(ids)}.'
            )
        tokens[row, : len(ids)] = ids
        valid[row, : len(ids)] = True
    return types.Text(tokens=tokens, valid=valid)


def _from_json(content, file: pathlib.Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json; refuses all but byte-level byte-pair tokenizers like RoBERTa's."""
    model, words = (content.get(name) if isinstance(content, dict) else None for name in ('model', 'pre_tokenizer'))
    if not isinstance(model, dict) or not isinstance(words, dict) or not isinstance(model.get('merges'), list):
        _refuse(file, 'it has no model with merges, or no pre_tokenizer')
    found = {
        'normalizer': content.get('normalizer'),
        'model.type': model.get('type', 'BPE'),
        'pre_tokenizer.type': words.get('type'),
        'pre_tokenizer.add_prefix_space': words.get('add_prefix_space'),
        'pre_tokenizer.use_regex': words.get('use_regex', True),
    } | {
        f'model.{name}': model.get(name)
        for name in ('dropout', 'continuing_subword_prefix', 'end_of_word_suffix', 'byte_fallback', 'ignore_merges')
    }
    ours = {'model.type': 'BPE', 'pre_tokenizer.type': 'ByteLevel', 'pre_tokenizer.use_regex': True}
    for name, value in found.items():
        if (value or None) != ours.get(name):
            _refuse(file, f'{name} = {value!r:.100}, must be {ours.get(name)} as in RoBERTa')
    pairs = [pair.split(' ') if isinstance(pair, str) else pair for pair in model['merges']]
    return _assemble(model.get('vocab'), pairs, content.get('added_tokens') or [], file, file)


def _assemble(vocab, merges: list, added, file: pathlib.Path, merges_file: pathlib.Path) -> Tokenizer:
    """Builds a tokenizer from the parts of a file. Checks them first: on inconsistent parts the library panics or
    takes any amount of memory.

    vocab: should be token -> id. merges: should be pairs of tokens. added: should be tokenizer.json's list of tokens
    that are matched before a sentence is split into words.
    """
    if (
        not isinstance(vocab, dict)
        or not isinstance(added, list)
        or not all(isinstance(token, dict) and isinstance(token.get('content'), str) for token in added)
    ):
        _refuse(file, 'its tokens are not written as {token: id}, or its added tokens not as a list of {content, id}')
    ids = vocab | {token['content']: token.get('id') for token in added}
    if not all(type(x) is int for x in ids.values()) or sorted(ids.values()) != list(range(len(ids))):
        _refuse(file, f'the ids of its {len(ids):,} tokens must be the numbers from 0 on, each once')
    if len(ids) > MOST_TOKENS:
        _refuse(file, f'{len(ids):,} tokens, at most {MOST_TOKENS:,} are allowed')
    for number, pair in enumerate(merges):
        if not (
            isinstance(pair, list)
            and len(pair) == 2
            and all(isinstance(x, str) and x in vocab for x in pair)
            and ''.join(pair) in vocab
        ):
            _refuse(merges_file, f'merge {number}, {pair!r:.100}, is not two tokens whose concatenation is a token')
    try:
        tokenizer = _roberta(models.BPE(vocab, [tuple(pair) for pair in merges]))
        for token in sorted(added, key=lambda token: token['id']):
            tokenizer.add_tokens(
                [
                    AddedToken(
                        token['content'],
                        special=token.get('special') is True,
                        **{side: token.get(side) is True for side in ('lstrip', 'rstrip')},
                    )
                ]
            )
    except Exception as error:  # The library also raises bare Exception.
        _refuse(file, error)
    if tokenizer.get_vocab() != ids:
        _refuse(file, 'the ids of its added tokens do not follow those of the others')
    return tokenizer


def _refuse(file: pathlib.Path, reason: object) -> typing.NoReturn:
    raise ValueError(
        f'{file}: cannot be read as a byte-pair tokenizer ({files.printable(str(reason))}). Copy it '
        'again, or use that of roberta-base.'
    )


def _roberta(model: models.BPE) -> Tokenizer:
    """RoBERTa's pipeline around a byte-pair model."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ('</s>', SPECIALS['</s>']), ('<s>', SPECIALS['<s>']), trim_offsets=True, add_prefix_space=False
    )
    present = [token for token in (*SPECIALS, '<unk>') if model.token_to_id(token) is not None]
    tokenizer.add_special_tokens(present)
    if model.token_to_id('<mask>') is not None:
        tokenizer.add_special_tokens([AddedToken('<mask>', lstrip=True)])
    return tokenizer
