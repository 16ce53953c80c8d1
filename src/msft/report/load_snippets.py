"""Python that loads a final model and asks it something, for its card and its page."""

from __future__ import annotations

from msft.report.story import Story

LOAD_MODEL = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

place = {place}
model = AutoModelForCausalLM.from_pretrained(place)
tokenizer = AutoTokenizer.from_pretrained(place)
"""
_LOAD_ADAPTER = """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer, {more}GenerationConfig

place = {place}
{bits}model = AutoPeftModelForCausalLM.from_pretrained(place{given})  # the base model, and the adapter on it
model.generation_config = GenerationConfig.from_pretrained(place)  # an answer ends where training taught it to
tokenizer = AutoTokenizer.from_pretrained(place)
"""
ASK = """\
prompt = tokenizer({prompt}, return_tensors="pt")
answer = model.generate(**prompt, max_new_tokens=40)
print(tokenizer.decode(answer[0], skip_special_tokens=True))
"""
ASK_IN_TURNS = """\
turns = [{"role": "user", "content": "Who are you?"}]
prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
# For a sub-dataset that was trained on plain prompts: prompt = tokenizer("...", return_tensors="pt")
answer = model.generate(**prompt, max_new_tokens=40)
print(tokenizer.decode(answer[0], skip_special_tokens=True))
"""
BITS = {
    "nf4": 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)',
    "fp4": 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=True)',
    "int8": "BitsAndBytesConfig(load_in_8bit=True)",
}
"""How transformers holds a base as it was in training."""


NOT_BY_AUTO = (
    "AutoModelForCausalLM of transformers 5.23 drops the magnitudes of a DoRA adapter and takes those of its base: "
    "load it with AutoPeftModelForCausalLM, or merge it (msft export RUN --merge)"
)


def is_dora(story: Story) -> bool:
    """Whether the run trained a DoRA adapter, which one of the usual ways of loading breaks (`NOT_BY_AUTO`)."""
    return bool(story.config.get("peft.use_dora"))


def quantized_in(story: Story) -> str | None:
    """In which numbers the base was held in training (`model.quantize`); None: as it is stored."""
    found = story.config.get("model.quantize")
    return found if found in BITS else None


def load_adapter(place: str, quantized: str | None) -> str:
    """Loads an adapter on its base, held as it was in training; `place`: Python for its folder or name."""
    if quantized is None:
        return _LOAD_ADAPTER.format(more="", place=place, bits="", given="")
    bits = f"bits = {BITS[quantized]}\n"
    given = ", quantization_config=bits"
    return _LOAD_ADAPTER.format(more="BitsAndBytesConfig, ", place=place, bits=bits, given=given)
