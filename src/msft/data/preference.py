"""Preference data (KTO): rows whose column `label` says whether the answer is a good one."""

from __future__ import annotations

from msft.config.dataset_section import DatasetConfig
from msft.core.errors import DataError, complaint
from msft.core.plain_words import many
from msft.data.formats import TEXT, Format
from msft.data.rows import Rows
from msft.data.splits import Splits

LABEL = "label"


def check_labels(dataset: DatasetConfig, splits: Splits, form: Format) -> None:
    """Raises DataError if a label, which nothing reads, marks answers as bad ones that would be learned or scored.

    Choices are right or wrong by their answer, and plain text answers nothing. A configuration that selects rows by
    their label knows of it.
    """
    if form.option is not None or form.kind is TEXT or LABEL in form.columns:
        return
    parts = [(dataset.field, dataset.own_rows, dataset.where, splits.train or splits.validation)]
    read = [("validation", dataset.validation, splits.validation), ("test", dataset.test, splits.test)]
    parts += [
        (f"{dataset.field}.{name}", name, own.where, rows) for name, own, rows in read if own is not None and own.given
    ]
    errors = []
    for key, name, where, rows in parts:
        if LABEL not in (where or ()) and (bad := _bad(rows)):
            learned = "learned" if name == "training" else "scored as a good one"
            found = f"the column label is false in {bad} of {many(len(rows), f'{name} row')}. In data for KTO, that "
            found += f"marks a bad answer, which would be {learned}"
            fix = "take the good ones with where: {label: true}; where: {label: [true, false]} takes all rows"
            errors.append(complaint(found, fix, field=f"{key}.where"))
    if errors:
        raise DataError("\n".join(errors))


def _bad(rows: Rows) -> int:
    """The number of rows that are labelled false; 0 unless every label that is not empty is a truth value."""
    bad = 0
    for row in rows:
        label = row.values.get(LABEL)
        text = "" if label is None else str(label).strip().casefold()
        if text not in ("", "true", "false"):
            return 0
        bad += text == "false"
    return bad
