"""Groups of data sets (`group`): one validation set, one score curve and one exclusion for several data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msft.config.dataset_section import DatasetConfig, SplitConfig
from msft.config.problems import folded, shown
from msft.core.errors import DataError, complaint
from msft.core.vocabulary import Task
from msft.data.checks import Checked
from msft.data.sources import Source
from msft.data.splits import default_size, used_rows


def grouped(tasks: Mapping[Task, Checked]) -> dict[Task, list[Task]]:
    """Sub-dataset of the search -> the data sets whose rows it has: itself, or those of its group, in their order."""
    found: dict[Task, list[Task]] = {}
    for task, made in tasks.items():
        found.setdefault(made.dataset.group or task, []).append(task)
    return found


def with_shared_validation(entries: Sequence[tuple[DatasetConfig, Source]]) -> list[tuple[DatasetConfig, Source]]:
    """The data sets; in a group where none says how it is validated, each gives the same share of its rows.

    Together these are as many items as a data set alone would give of as many rows.
    """
    members: dict[str, list[int]] = {}
    for number, (dataset, _) in enumerate(entries):
        if dataset.group is not None:
            members.setdefault(dataset.group, []).append(number)
    made = list(entries)
    for numbers in members.values():
        if any(made[number][0].validation is not None for number in numbers):
            continue
        try:
            rows = sum(used_rows(*made[number]) for number in numbers)
        except DataError:  # which is found again, and reported, where the data set is read
            continue
        if wanted := default_size(rows):
            share = SplitConfig(fraction=wanted / rows)
            for number in numbers:
                dataset, source = made[number]
                made[number] = dataset.model_copy(update={"validation": share}), source
    return made


def check_groups_of(tasks: Mapping[Task, Checked]) -> None:
    """Raises DataError for a group without validation items, with two scorers, or with the name of a data set."""
    errors = []
    names = {folded(task): task for task in tasks}
    for group, members in grouped(tasks).items():
        if tasks[members[0]].dataset.group is None:
            continue
        if (taken := names.get(folded(group))) is not None:
            found = f"the name of the group {shown(group)} is taken: {shown(taken)} is a sub-dataset"
            errors.append(complaint(found, "give the group another name", field=f"datasets.{taken}"))
        if not any(tasks[member].part.held["validation"] for member in members):
            fix = "give more rows, or a validation split in one of its entries"
            found = f"there is no validation example in the group {shown(group)}"
            errors.append(complaint(found, fix, field=f"datasets.{members[0]}.validation"))
        errors += _other_scorers(group, [tasks[member] for member in members])
    if errors:
        raise DataError("\n".join(errors))


def _other_scorers(group: Task, members: Sequence[Checked]) -> list[str]:
    """Scorers that were found from the rows, rather than written, may differ too."""
    scored = [member for member in members if any(member.part.held.values())]
    return [
        complaint(
            f"its validation and test items are scored by {member.form.measure.name}, and those of "
            f"{scored[0].dataset.id} by {scored[0].form.measure.name}"
            f"{' with other settings' if member.form.measure.name == scored[0].form.measure.name else ''}: the group "
            f"{shown(group)} has one curve, so it has one scorer",
            "write the same scorer in all of its entries, or take this one out of the group",
            field=f"{member.dataset.field}.scorer",
        )
        for member in scored[1:]
        if member.form.measure != scored[0].form.measure
    ]
