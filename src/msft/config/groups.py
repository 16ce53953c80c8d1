"""`group`: entries of `datasets` that share a validation set and are excluded together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msft.config.dataset_section import DatasetConfig
from msft.config.problems import SAFE, Problem, ProblemsError, folded, not_portable, one_of, shown, unsafe_name


def check_groups(datasets: Sequence[DatasetConfig]) -> None:
    """Raises ProblemsError for a group that has one entry only, two scorers, or a name that is taken."""
    groups: dict[str, list[int]] = {}
    for number, dataset in enumerate(datasets):
        if dataset.group is not None:
            groups.setdefault(dataset.group, []).append(number)
    ids = {folded(dataset.id): dataset.id for dataset in datasets}
    problems: list[Problem] = []
    first: dict[str, str] = {}
    for name, members in groups.items():
        at = ("datasets", members[0], "group")
        if reason := unsafe_name(name, "name of the group"):
            problems.append(Problem(reason, SAFE, at))
        elif reason := not_portable(name):
            problems.append(Problem(reason, "give it another name", at))
        elif (known := first.setdefault(folded(name), name)) != name:
            found = f"the groups {known!r} and {name!r} have the same name if case and width are ignored"
            problems.append(Problem(found, "write the name in the same way in all entries of a group", at))
        elif folded(name) in ids:
            found = f"the name is taken: {shown(ids[folded(name)])} is the id of a data set"
            problems.append(Problem(found, "give the group another name: its scores stand beside theirs", at))
        elif len(members) == 1 and datasets[members[0]].split_by is None:
            others = [other for other in groups if other != name]
            fix = one_of(name, others) if others else "write the same group in other entries"
            found = f"no other data set is in the group {shown(name)}"
            problems.append(Problem(found, f"{fix}; or remove it: a group needs two data sets", at))
        else:
            problems += _two_scorers(name, {number: datasets[number] for number in members})
    if problems:
        raise ProblemsError(problems)


def _two_scorers(name: str, members: Mapping[int, DatasetConfig]) -> list[Problem]:
    """A group has one curve, so all of its items are scored alike; shots may differ."""
    given = {
        number: dataset.scorer.model_dump(exclude={"shots"})
        for number, dataset in members.items()
        if dataset.scorer is not None
    }
    one = next(iter(given), None)
    return [
        Problem(
            f"the group {shown(name)} has one curve, so its entries have one scorer, and that of "
            f"{members[one].id} is another",
            f"write the scorer of {members[one].id} here too, or take this entry out of the group",
            ("datasets", number, "scorer"),
        )
        for number, scorer in given.items()
        if one is not None and scorer != given[one]
    ]
