"""The table of gpu.py: all that its JSON holds so far, as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common import table

STEPS = ("small", "full", "larger")
"""The parts that measure a step."""
KINDS = ("train", "eval", "snapshot", "restore", "start", "export", "record")


def report(content: dict[str, Any]) -> str:
    parts, on = content["parts"], content["machine"]
    names = [
        f"{name} {version}" for name, version in on["versions"].items() if name in ("torch", "transformers", "trl")
    ]
    lines = [", ".join([on["gpu"] or on["cpu"], *names])]
    rows = [row for name in STEPS if name in parts for row in step_rows(name, parts[name], content["peak_flops"])]
    if rows:
        head = ("step", "ms", "real tokens/s", "ours is ... x", "MFU", "of products", "peak GiB", "last loss")
        lines += ["", table(head, rows)]
    if facts := [fact for name, tell in FACTS.items() for fact in tell(parts.get(name, {}))]:
        lines += ["", table(("what", "measured"), facts)]
    if lacks := sorted({package for part in parts.values() for package in part.get("skipped", [])}):
        lines += ["", f"Not installed here, and so not measured: {', '.join(lacks)}"]
    for name, part in parts.items():
        if part["status"] != "done":
            lines += ["", f"NOT COMPLETE: {name}: {part['status']}. {in_a_line(part.get('said', ''))[-300:]}"]
    return "\n".join(lines)


def step_rows(name: str, part: dict[str, Any], peak: float | None) -> list[tuple[Any, ...]]:
    """One for each contender. MFU and share of products are of the body's and the head's FLOPs."""
    found, products = part.get("contenders", {}), part.get("products", {})
    ours = found.get("ours", {}).get("tokens_per_second")
    of_a_token = 0.0
    if products:
        flops = products["flops_per_step"]
        of_a_token = (flops["body"] + flops["head"]) / products["tokens_per_step"]
    rows: list[tuple[Any, ...]] = []
    for label, one in found.items():
        if "failed" in one:
            rows.append((f"{name}, {label}", "FAILED", *[None] * 5, in_a_line(one["failed"])[:100]))
            continue
        rate = one["tokens_per_second"]
        shares = [f"{of_a_token * rate / most:.1%}" if most and products else None
                  for most in (peak, products.get("flops_per_second"))]  # fmt: skip
        faster = ours / rate if ours and label != "ours" else None
        memory = one.get("max_memory_allocated", one["peak_memory"]) / 2**30
        step = 1000 * one["seconds_per_step"]
        loss = None if one["last_loss"] is None else f"{one['last_loss']:.4f}"
        rows.append((f"{name}, {label}", step, rate, faster, *shares, memory, loss))
    if products:
        rows.append((f"{name}, products alone: {products['flops_per_second'] / 1e12:.3g} TFLOP/s", *[None] * 7))
    return rows


def of_search(part: dict[str, Any]) -> list[tuple[str, str]]:
    if "seconds" not in part:
        return []
    spent, one = part["seconds"], part.get("evaluation")
    kinds = ", ".join(f"{kind} {spent[kind]:.1f}" for kind in KINDS)
    counts = ", ".join(f"{part[name]} {name}" for name in ("steps", "ticks", "rollouts", "rollbacks"))
    facts = [("a search, seconds", f"{part['wall_seconds']:.1f}; of {spent['total']:.1f} recorded: {kinds}")]
    facts.append(("a search", counts))
    if one is not None:
        after = f"{one['eval']:.3f} s, after {one['train']:.3f} s of training; snapshot {one['snapshot']:.3f} s"
        facts.append(("an evaluation of all sets", after))
    return facts


def of_determinism(part: dict[str, Any]) -> list[tuple[str, str]]:
    if "same" not in part:
        return []
    differ = f"ANOTHER JOURNAL, from record {part['first_difference']} of {part['records'][0]}"
    return [("the same run twice", "the same journal" if part["same"] else differ)]


def of_kills(part: dict[str, Any]) -> list[tuple[str, str]]:
    if "kills" not in part:
        return []
    counts = f"{part['kills']} kills, {part['resumed']} resumed, {len(part['refusals'])} REFUSED"
    same = f", {part['same']} of them with the calm run's journal"
    facts = [("kill -9 and resume", f"{counts}; {part['finished']} runs finished{same}")]
    return facts + [("refused", in_a_line(one["said"])[-300:]) for one in part["refusals"]]


def of_study(part: dict[str, Any]) -> list[tuple[str, str]]:
    if "ended" not in part:
        return []
    ended = f"{part['ended']} of {part['runs']} runs in {part['wall_seconds']:.0f} s with --jobs {part['jobs']}"
    return [("a study", f"{ended}: {part['runs_an_hour']:.0f} an hour")]


def of_generation(part: dict[str, Any]) -> list[tuple[str, str]]:
    if "ms_a_token" not in part:
        return []
    way = part["ms_a_token"]
    recorded = f"recorded {sum(part['recorded'])} of {len(part['recorded'])} times"
    why = f" ({in_a_line('; '.join(part['refused']))[:200]})" if part["refused"] else ""
    same = f"the same texts: {part['same_texts']} of {part['rows']}"
    return [("a new token of all rows, ms", f"growing cache {way['growing']:.2f}, fixed {way['fixed']:.2f}; "
                                            f"{recorded}{why}; {same}")]  # fmt: skip


FACTS: dict[str, Callable[[dict[str, Any]], list[tuple[str, str]]]] = {
    "search": of_search, "generation": of_generation, "determinism": of_determinism, "kills": of_kills,
    "study": of_study,
}  # fmt: skip


def in_a_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")
