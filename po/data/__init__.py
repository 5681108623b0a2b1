"""Preference data: any form of rows -> rows of token ids, checked and counted.

    from po.data import EncodeSettings, encode_rows

    rows, counts = encode_rows(dataset, tokenizer, EncodeSettings(max_prompt_length=512))

Data flow one way: `forms` (what a row is), `adapters` (columns of known data sets), `pairing` (one form out
of another), `tokenize`, `truncate`, `screen` (what cannot be learned from), `encode` (all of it).
"""

from po.data.adapters import ADAPTERS, adapter_named
from po.data.encode import Encoder, EncodeSettings, encode_rows
from po.data.forms import form_of
from po.data.pairing import pairs_from_ranked, unpaired_from_pairs

__all__ = [
    "ADAPTERS",
    "EncodeSettings",
    "Encoder",
    "adapter_named",
    "encode_rows",
    "form_of",
    "pairs_from_ranked",
    "unpaired_from_pairs",
]
