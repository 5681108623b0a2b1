"""What decides the values of a reference folder: their key, and what is checked before they are used."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from po.references.values import LOGPS_RULE


@dataclass(frozen=True, kw_only=True)
class Content:
    """All that stored values depend on.

    The chat template and the prompt's text have no entry of their own: both act on the values through the
    token ids alone, and those are in ``data_sha256``.

    Attributes:
        model_sha256: of the weights, by ``po.reference.weights_digest``; or of what decides them, where a
            folder is looked for before the weights are loaded (``po.references.shared_logps``).
        dtype: of the weights; several, joined by ``+``, where parts are quantized.
        data_sha256: of the token ids in order, by ``po.rows.rows_digest``.
        rows: their number.
        form: which completions of a row are meant.
        precision: ``bf16`` for autocast, ``fp32`` for none.
        kinds: which values.
        rule: what a log-probability counts.
    """

    model_sha256: str
    dtype: str
    data_sha256: str
    rows: int
    form: str
    precision: str
    kinds: tuple[str, ...]
    rule: str = LOGPS_RULE

    @property
    def key(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def document(self) -> dict[str, Any]:
        """As it stands in ``reference.json``."""
        return asdict(self) | {"kinds": list(self.kinds)}

    def refusal(self, facts: Mapping[str, Any]) -> str | None:
        """Why values that were stored are not those that are wanted, or None.

        Args:
            facts: of the stored values, as ``document`` gave them; they may be of more kinds.
        """
        lacking = sorted(set(self.document()) - set(facts))
        if lacking:
            return f"reference.json says nothing of {', '.join(lacking)}; another version has written it"
        missing = [kind for kind in self.kinds if kind not in facts["kinds"]]
        if missing:
            return (
                f"has the values {', '.join(facts['kinds'])}, and the method reads {', '.join(missing)} too"
            )
        for name, what in _PLAIN.items():
            if facts[name] != getattr(self, name):
                return f"{what} '{facts[name]}', and training has '{getattr(self, name)}'"
        if (facts["data_sha256"], facts["rows"]) != (self.data_sha256, self.rows):
            return "the reference log-probabilities were computed for other rows"
        if facts["model_sha256"] != self.model_sha256:
            return (
                "the reference log-probabilities come from other weights than training starts from (whether "
                "those were changed in place is found by: python -m experiments.verify)"
            )
        return None


_PLAIN = {
    "rule": "the reference log-probabilities were counted by the rule",
    "form": "the reference log-probabilities are of rows of the form",
    "precision": "the reference log-probabilities were computed in precision",
    "dtype": "the reference log-probabilities come from weights of dtype",
}
