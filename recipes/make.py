"""Writes the recipes beside it: `python recipes/make.py`. A test holds the files to what this makes.

One place says how each data set is read, so that what differs between two recipes is what their names say.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent

MODELS = {
    "qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B",
    "qwen2.5-1.5b": "Qwen/Qwen2.5-1.5B",
    "qwen2.5-3b": "Qwen/Qwen2.5-3B",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "olmo-2-1b": "allenai/OLMo-2-0425-1B",
}

CHOICE = "scorer: {name: choice, of: text, normalize: token}"
EXACT = "scorer: {name: exact_match}"
SPOKEN = r'scorer: {name: generate, extract: "####", stop: ["\n\nQuestion:"], max_new_tokens: 256}'
SHOTS = r'scorer: {name: generate, extract: "####", stop: ["\n\nQuestion:"], max_new_tokens: 512, shots: {k: 5}}'
"""As the released evaluation: greedy, after five examples, the answer behind `####`."""
GIVEN = ["validation: {split: validation, max_samples: 300}", "test: {split: test, max_samples: 1000}"]
CARVED = ["validation: {max_samples: 300}", "test: {split: validation, max_samples: 1000}"]
"""Where the hub's test split has no answers: validation comes from the training rows, the test is its validation."""


def choices(prompt: str, columns: str, splits: list[str], path: str, *more: str) -> list[str]:
    return [f"path: {path}", *more, f"columns: {{{columns}}}", f'template: {{prompt: "{prompt}"}}', *splits, CHOICE]


def spoken(prompt: str, completion: str, splits: list[str], path: str, *more: str) -> list[str]:
    return [
        f"path: {path}", *more, f'template: {{prompt: "{prompt}", completion: "{completion}"}}', *splits, SHOTS
    ]  # fmt: skip


def answers(prompt: str, completion: str, splits: list[str], path: str, *more: str) -> list[str]:
    return [
        f"path: {path}", *more, f'template: {{prompt: "{prompt}", completion: "{completion}"}}', *splits, EXACT
    ]  # fmt: skip


ASK = r"Question: {question}\nAnswer:"
LABELLED = "question: question, choices: choices, answer: answerKey"
LISTED = r"Question: {question}\n{choices_text}Answer:"
MEDMCQA = choices(
    ASK, "question: question, choices: [opa, opb, opc, opd], answer: cop", CARVED, "openlifescienceai/medmcqa"
)
HUB = {
    "arc_easy": choices(ASK, LABELLED, GIVEN, "allenai/ai2_arc", "name: ARC-Easy"),
    "openbookqa": choices(
        r"{question_stem}\nAnswer:", "question: question_stem, choices: choices, answer: answerKey", GIVEN,
        "allenai/openbookqa", "name: main",
    ),
    "sciq": choices(
        ASK,
        "question: question, choices: [distractor1, distractor2, distractor3, correct_answer], answer: correct_answer",
        GIVEN, "allenai/sciq",
    ),
    "winogrande": choices(
        r"{sentence}\nAnswer:", 'question: sentence, choices: {"1": option1, "2": option2}, answer: answer', CARVED,
        "allenai/winogrande", "name: winogrande_debiased",
    ),
    "aqua_rat": spoken(
        LISTED, r" {rationale}\n#### {answer_letter}", GIVEN, "deepmind/aqua_rat", "name: raw",
        "columns: {question: question, choices: options, answer: correct}",
    ),
    "boolq": answers(r"{passage}\nQuestion: {question}?\nAnswer:", " {answer}", CARVED, "google/boolq"),
    "gsm8k": spoken(
        ASK, " {answer}", ["validation: {max_samples: 300}", "test: {split: test, max_samples: 1000}"],
        "openai/gsm8k", "name: main",
    ),
    "medmcqa": MEDMCQA,
    "hellaswag": choices("{ctx}", "question: ctx, choices: endings, answer: label", CARVED, "Rowan/hellaswag"),
    "commonsense_qa": choices(ASK, LABELLED, CARVED, "tau/commonsense_qa"),
    "arc_challenge": choices(ASK, LABELLED, GIVEN, "allenai/ai2_arc", "name: ARC-Challenge"),
    "qasc": choices(ASK, LABELLED, CARVED, "allenai/qasc"),
    "race": choices(
        r"{article}\nQuestion: {question}\nAnswer:", "question: question, choices: options, answer: answer", GIVEN,
        "ehovy/race", "name: middle",
    ),
    "sst2": answers(
        r"{sentence}\nQuestion: Is this negative or positive?\nAnswer:", " {label}", CARVED, "stanfordnlp/sst2"
    ),
    "ag_news": answers(
        r"{text}\nQuestion: Is this World, Sports, Business or Sci/Tech?\nAnswer:", " {label}",
        ["validation: {max_samples: 300}", "test: {split: test, max_samples: 1000}"], "fancyzhx/ag_news",
    ),
}  # fmt: skip
PAPER = list(HUB)[:10]
SIZES = {5: ["arc_easy", "boolq", "gsm8k", "medmcqa", "hellaswag"], 10: PAPER, 15: list(HUB)}
SUBJECTS = ["split_by: subject_name", *MEDMCQA]


def local(prompt: str = "", completion: str = "", *, scorer: str = CHOICE) -> list[str]:
    """A file that holds its splits in a column: a question with its choices and the position of the answer, or a prompt
    with its completion."""
    texts = [f'{key}: "{text}"' for key, text in (("prompt", prompt), ("completion", completion)) if text]
    template = [f"template: {{{', '.join(texts)}}}"] if texts else []
    splits = [f"{part}: {{where: {{split: {part}}}}}" for part in ("validation", "test")]
    return ["where: {split: train}", *template, *splits, scorer]


LOCAL = {
    **dict.fromkeys(("arc_easy", "openbookqa", "sciq"), local(ASK)),
    "aqua_rat": local(LISTED, r" {rationale}\n#### {answer_letter}", scorer=SPOKEN),
    "boolq": local(r"Passage: {context}\nQuestion: {question}?\nAnswer:"),
    "gsm8k": local(scorer=SPOKEN),
    "medmcqa": local(ASK),
    "hellaswag": local("{question}"),
    **dict.fromkeys(("commonsense_qa", "arc_challenge"), local(ASK)),
    "piqa": local(r"Goal: {question}\nAnswer:"),
    "mawps": local(scorer=SPOKEN),
}
LOCAL_SIZES = {5: SIZES[5], 10: [*LOCAL][:10], 12: [*LOCAL]}


def recipe(
    title: str, model: str, datasets: dict[str, list[str]], output: str, *, preset: str, max_length: int = 2048
) -> str:
    """A whole configuration. Five examples of gsm8k and a question take more than 1,024 tokens."""
    lines = [f"# {title}", "# Made by recipes/make.py; recipes/README.md says what is not certain.", ""]
    lines += [f"model: {{name_or_path: {model}}}", f"method: {{name: msft, preset: {preset}}}", "datasets:"]
    for name, entry in datasets.items():
        lines += [f"  - id: {name}", *(f"    {line}" for line in entry), "    max_samples: 1800"]
    lines += [f"data: {{seed: 20, max_length: {max_length}}}", "training: {batch_size: 64, learning_rate: 1e-5}"]
    return "\n".join([*lines, f"output: runs/{output}", ""])


def recipes() -> Iterable[tuple[str, str]]:
    """The path of each recipe below this folder, and its text."""
    for size, names in SIZES.items():
        for short, model in MODELS.items():
            name = f"n{size:02}-{short}"
            title = f"{size} data sets of the hub, {model}, the paper's published settings."
            yield f"hub/{name}.yaml", recipe(title, model, {n: HUB[n] for n in names}, name, preset="release")
    title = "The 21 subjects of MedMCQA, a sub-dataset each, the paper's published settings."
    model = MODELS["qwen2.5-3b"]
    yield "hub/medmcqa-subjects.yaml", recipe(
        title, model, {"medmcqa": SUBJECTS}, "medmcqa-subjects", preset="release"
    )  # fmt: skip
    for size, names in LOCAL_SIZES.items():
        entries = {name: [f"path: data/{name}.jsonl", *LOCAL[name]] for name in names}
        title = f"{size} local files: data/<name>.jsonl beside this file or in the working directory."
        yield f"local/n{size:02}.yaml", recipe(
            title, MODELS["qwen2.5-0.5b"], entries, f"local-n{size:02}", preset="robust", max_length=1024
        )  # fmt: skip


def main() -> None:
    for path, text in recipes():
        (HERE / path).parent.mkdir(exist_ok=True)
        (HERE / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
