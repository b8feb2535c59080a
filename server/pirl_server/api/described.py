"""Schemas whose fields are described in the OpenAPI document by the text below each, as it is read in the code."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Described(BaseModel):
    """Base of the schemas of requests and responses."""

    model_config = ConfigDict(use_attribute_docstrings=True)
