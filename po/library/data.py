"""The data sets of a training, made ready once: token ids, what the method derives of them, stored values."""

from collections.abc import Mapping
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from po.faults import InputFault
from po.library.config import PreferenceConfig
from po.library.rows import PreparedRows, prepare_rows
from po.library.start import ReferenceChoice
from po.methods.method import DataForm
from po.references.cell import with_derived
from po.references.sources import StoredReference
from po.references.values import reference_values, with_values
from po.rows import Row
from po.training.collate import Collator


class PreferenceData:
    """Makes data sets ready for one training.

    Args:
        args: of the training.
        processing_class: tokenizer or processor; None does for rows of ids.
        policy: before its first step, on its device.
        choice: the reference.

    Attributes:
        images: what turns images of rows into tensors; None until a data set has some.
    """

    def __init__(
        self, args: PreferenceConfig, processing_class: Any, policy: Any, choice: ReferenceChoice
    ) -> None:
        self.args = args
        self.processing_class = processing_class
        self.images: Any = None
        self._policy, self._choice = policy, choice
        self._closed = False

    def ready(self, dataset: Any, what: str) -> Any:
        """A data set as the trainer takes it; what is ready already, or None, as it is.

        Args:
            dataset: as ``po.library.rows.prepare_rows`` takes it, or several by name.
            what: how messages call it.

        Raises:
            InputFault: the rows cannot be encoded, or the method cannot learn from them; or values of a
                reference that is gone are needed.
        """
        if dataset is None or isinstance(dataset, PreparedRows | str):
            return dataset
        if isinstance(dataset, Mapping):
            return {name: self.ready(part, f"{what}['{name}']") for name, part in dataset.items()}
        method, params = self.args.resolved_method, self.args.resolved_params
        stored = isinstance(self._choice.reference, StoredReference)
        if self._closed and (stored or "density_ratio" in method.needed(params)):
            raise InputFault(
                f"{what} needs values of the model before training, which is gone; give the data set to the "
                "trainer when it is made"
            )
        encoder_decoder = bool(self._policy.config.is_encoder_decoder)
        rows = prepare_rows(dataset, what, self.args, self.processing_class, encoder_decoder=encoder_decoder)
        if self.images is None and any(row.get("images") for row in rows):
            from po.engine.images import ImageTensors

            self.images = ImageTensors.of(self.processing_class, self._policy)
        derived = with_derived(method, params, list(rows), self._policy, self.args.seed)
        return PreparedRows(self._stored(derived) if stored else derived, rows.source)

    def collator(self) -> Collator:
        """What makes batches of the data sets that are ready."""
        encoder_decoder = bool(self._policy.config.is_encoder_decoder)
        return Collator.of(self.args.resolved_method, self.args.resolved_params, encoder_decoder, self.images)

    def close(self) -> None:
        """Training may begin: the policy is no longer what it was, and a reference that was asked goes."""
        self._closed = True
        self._choice = self._choice.without_model()

    def _stored(self, rows: list[Row]) -> list[Row]:
        """The rows with the reference's values; each process computes its share."""
        method, params = self.args.resolved_method, self.args.resolved_params
        form: DataForm = "ranked" if method.data == "ranked" else "unpaired"
        precision = "bf16" if self.args.bf16 else "fp32"
        state = PartialState()
        share = rows[state.process_index :: state.num_processes]
        kinds = method.stored_reference(params)
        extended = share
        if share:
            model = self._choice.asked_before
            extended = with_values(
                share, reference_values(model, share, precision, kinds, form, self.images), form
            )
        values = [{name: row[name] for name in row if name.startswith("reference_")} for row in extended]
        if state.num_processes > 1:
            places = range(state.process_index, len(rows), state.num_processes)
            gathered = dict(gather_object(list(zip(places, values, strict=True))))
            values = [gathered[index] for index in range(len(rows))]
        return [row | more for row, more in zip(rows, values, strict=True)]
