"""`msft schema`: the JSON Schema of a configuration, for completion and checks in an editor."""

from __future__ import annotations

from typing import Any

from pydantic import create_model

from msft.config.dataset_defaults import KEY as DATASET_DEFAULTS
from msft.config.method_section import json_schema as method_schema
from msft.config.schema import Config
from msft.config.section import STRICT

MEANING = (
    "Keys that every entry of `datasets` has unless it gives them itself. A value is inherited whole: an entry with a "
    "`validation` of its own has nothing of the default one, and `null` in an entry switches a default off."
)


def json_schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) that accepts every configuration that the reader accepts.

    Some rules, such as keys of a data set that exclude each other, are checked by the reader only.
    """
    fields: dict[str, Any] = {
        name: (field.annotation, field) for name, field in Config.model_fields.items() if name != "method"
    }
    schema = create_model("Config", __config__=STRICT, **fields).model_json_schema()
    schema["properties"]["method"] = method_schema()
    entry = schema["$defs"]["DatasetConfig"]
    defaults = {key: value for key, value in entry["properties"].items() if key != "id"}
    entry["required"].remove("path")  # the defaults may hold it
    section = {"type": "object", "properties": defaults, "additionalProperties": False}
    schema["properties"][DATASET_DEFAULTS] = {
        "anyOf": [section, {"type": "null"}], "default": None, "description": MEANING,
    }  # fmt: skip
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "A job of msft"}
