"""How published networks split a question into words, where that differs from `shards.questions.words_of`.

`released_words` is AVST's, Missing-AVQA's and PSTP-Net's rule (GeWu-Lab/MUSIC-AVQA), on the filled text: on
33,710 published questions the same words as on the templates. `ClipWords` is CLIP's byte pairs of these words,
as PSTP-Net asks CLIP. `word_pieces` is BERT's rule (Devlin et al. 2019, uncased), by which LAViT reads.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping

CLIP_LENGTH, CLIP_IDS = 77, 49408  # of CLIP's text: start, byte pairs, end, zeros; how many ids there are
START, END, UNKNOWN_PIECE = "[CLS]", "[SEP]", "[UNK]"
_LONGEST_WORD = 100  # characters; BERT takes longer ones for unknown
_ASCII_PUNCTUATION = (range(33, 48), range(58, 65), range(91, 97), range(123, 127))


def released_words(text: str) -> list[str]:
    """Split at single spaces, the last word without its last character (the question mark), case kept."""
    words = text.rstrip().split(" ")
    return [*words[:-1], words[-1][:-1]]


def clip_ids(text: str) -> list[int]:
    """CLIP's ids of the released words of a question, [77]; a longer question is cut."""
    from open_clip import tokenize  # torch, and seconds

    return tokenize(" ".join(released_words(text)), CLIP_LENGTH)[0].tolist()


def word_pieces(text: str, pieces: Mapping[str, int]) -> list[str]:
    """BERT's pieces of a question, `[SEP]` at the end; what can't be made of `pieces` is `[UNK]`."""
    found = [piece for word in _basic_words(text) for piece in _pieces_of(word, pieces)]
    return [*found, END]


def _basic_words(text: str) -> list[str]:
    """Lower case, without accents; each mark of punctuation and each Chinese character is a word."""
    bare = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    return "".join(f" {c} " if _stands_alone(c) else c for c in bare).split()


def _stands_alone(character: str) -> bool:
    code = ord(character)
    if any(code in part for part in _ASCII_PUNCTUATION):
        return True
    return unicodedata.category(character).startswith("P") or 0x4E00 <= code <= 0x9FFF


def _pieces_of(word: str, pieces: Mapping[str, int]) -> list[str]:
    """The longest piece from the left, again and again; pieces within a word begin with ##."""
    found = list(_longest_pieces(word, pieces)) if len(word) <= _LONGEST_WORD else [UNKNOWN_PIECE]
    return [UNKNOWN_PIECE] if UNKNOWN_PIECE in found else found


def _longest_pieces(word: str, pieces: Mapping[str, int]) -> Iterator[str]:
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        end = next((e for e in range(len(word), start, -1) if prefix + word[start:e] in pieces), None)
        if end is None:
            yield UNKNOWN_PIECE
            return
        yield prefix + word[start:end]
        start = end
