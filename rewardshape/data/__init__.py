"""Preference data: files of any common form into pairs, pairs into tokens, every row accounted for."""

from rewardshape.data.preferences import Message, Pair, ReadReport, fingerprint, read_preferences
from rewardshape.data.tokenization import EncodedPair, EncodeReport, encode_pairs

__all__ = [
    "EncodeReport",
    "EncodedPair",
    "Message",
    "Pair",
    "ReadReport",
    "encode_pairs",
    "fingerprint",
    "read_preferences",
]
