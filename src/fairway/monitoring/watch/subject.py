"""What a model predicts: windows of its predictions that performance can be told of."""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa

from fairway.core.contract import Contract, Task
from fairway.core.errors import InvalidInput
from fairway.monitoring.performance import frames
from fairway.monitoring.performance.frames import Reading
from fairway.monitoring.performance.values import Classified, Regressed
from fairway.monitoring.watch.frame import ACTUAL, Frame

Predicted = Classified | Regressed


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """How a version's predictions are read. `classes` is empty for a regression."""

    classes: tuple[str, ...]
    reading: Reading

    def window(self, frame: Frame, what: str) -> Predicted:
        """The predictions of a frame, with labels where they are known. Labels that are none of the classes count as
        unknown. Raises InvalidInput for columns that are not there, or do not hold what they should."""
        table = frame.with_actual()
        needed = (self.reading.prediction, *(column for _, column in self.reading.proba))
        absent = [name for name in needed if name is not None and name not in table.column_names]
        if absent:
            raise InvalidInput(f"{what} has no column {', '.join(absent)}.")
        if not self.classes:
            return frames.regressed(table, self.reading, what)
        spellings = spellings_of(self.classes)
        for name in (ACTUAL, self.reading.prediction):
            if name in table.column_names:
                texts = [None if v is None else frames.label_text(v) for v in table[name].to_pylist()]
                kept = [None if text is None else spellings.get(text.lower()) for text in texts]
                place = table.column_names.index(name)
                table = table.set_column(place, name, pa.chunked_array([pa.array(kept, pa.string())]))
        return frames.classified(table, self.reading, self.classes, what)


def subject_of(contract: Contract, inputs: tuple[str, ...]) -> Subject | None:
    """None for a model of which nothing is known but its outputs' names."""
    outputs = {output.name: output for output in contract.outputs}
    taken = set(inputs)

    def shown(name: str) -> str:
        return f"output.{name}" if name in taken else name

    if contract.task is Task.classification and {"label", "probabilities"} <= outputs.keys():
        classes = outputs["probabilities"].labels
        if len(classes) < 2:
            return None
        pairs = tuple((label, shown(f"probabilities[{label}]")) for label in classes)
        if len(classes) == 2:
            pairs = (("", pairs[1][1]),)
        reading = Reading(prediction=shown("label"), target=ACTUAL, proba=pairs, features=inputs)
        return Subject(classes=classes, reading=reading)
    if contract.task is Task.regression and "prediction" in outputs and not outputs["prediction"].shape:
        reading = Reading(prediction=shown("prediction"), target=ACTUAL, features=inputs)
        return Subject(classes=(), reading=reading)
    return None


def spellings_of(classes: tuple[str, ...]) -> dict[str, str]:
    """Class by what a label may be written as, in small letters: whoever sends labels knows the class as 1, 1.0 or true,
    whatever the model was trained with."""
    same = ({"true", "1", "1.0"}, {"false", "0", "0.0"})
    found: dict[str, str] = {}
    for label in classes:
        text = label.lower()
        for spelling in next((group for group in same if text in group), {text}):
            found.setdefault(spelling, label)
        if text.isdigit():
            found.setdefault(f"{text}.0", label)
    return found | {label.lower(): label for label in classes}


def rarest_labels(window: Predicted) -> int:
    """Labels of the class that has the fewest; of a regression, all."""
    if isinstance(window, Classified):
        known = window.actual[window.actual >= 0]
        return int(np.bincount(known, minlength=len(window.classes)).min()) if len(known) else 0
    return labelled_rows(window)


def labelled_rows(window: Predicted) -> int:
    if isinstance(window, Classified):
        return int((window.actual >= 0).sum())
    return int(np.isfinite(window.actual).sum())
