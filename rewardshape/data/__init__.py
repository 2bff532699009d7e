"""Preference data: files of any common form into pairs, pairs into tokens, every row and column accounted for."""

from rewardshape.data.cells import parse_columns
from rewardshape.data.messages import Message
from rewardshape.data.preferences import Pair, fingerprint, read_preferences
from rewardshape.data.reports import EncodeReport, ReadReport
from rewardshape.data.templates import parse_template_arguments
from rewardshape.data.tokenization import EncodedPair, encode_pairs

__all__ = [
    "EncodeReport",
    "EncodedPair",
    "Message",
    "Pair",
    "ReadReport",
    "encode_pairs",
    "fingerprint",
    "parse_columns",
    "parse_template_arguments",
    "read_preferences",
]
