"""Strict fields for bodies: each takes one JSON type, within stated bounds, and knows its JSON Schema."""

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from flask import current_app
from marshmallow import RAISE, Schema, ValidationError, fields

from resources.http import types
from service.metadata import MAX_MEMBERS
from service.normal import EMAIL_LENGTH, EMAIL_PATTERN, MANY_LINES, NO_EDGE_SPACE, ONE_LINE

MAX_ITEMS = 100
MAX_TEXT = 1000
LARGEST = 2**53 - 1  # The integers that every JSON reader keeps exact (RFC 8259 §6).


class Message(str):
    """A sentence about a fault, with its stable code."""

    code: str

    def __new__(cls, code: str, text: str) -> "Message":
        message = super().__new__(cls, text)
        message.code = code
        return message


class StrictSchema(Schema):
    """A schema that refuses fields it does not know."""

    class Meta:
        unknown = RAISE

    error_messages = {"unknown": Message("unknown_field", "Not a field here.")}


class Strict(fields.Field):
    """A field of one JSON type."""

    default_error_messages = {
        "required": Message("required", "Is needed."),
        "null": Message("null", "May not be null."),
    }

    @abstractmethod
    def json_schema(self) -> dict[str, Any]:
        """Return what the field accepts, null aside, as JSON Schema."""


def _normal(text: str, most: int) -> str:
    """Return NFC, unless the text is far too long for it: sorting many combining marks takes time squared."""
    return text if len(text) > 4 * most else unicodedata.normalize("NFC", text)


class Text(Strict):
    """A string in NFC, counted in code points, without characters that cannot be seen."""

    def __init__(self, least: int, most: int, *, pattern: str = ONE_LINE, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.least, self.most, self.pattern = least, most, pattern

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": self.least, "maxLength": self.most, "pattern": f"^{self.pattern}$"}

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError(Message("invalid_type", "Must be a string."))
        text = _normal(value, self.most)
        if len(text) < self.least:
            raise ValidationError(Message("too_short", f"Use at least {self.least} characters."))
        if len(text) > self.most:
            raise ValidationError(Message("too_long", f"Use at most {self.most} characters."))
        if not re.fullmatch(self.pattern, text):
            raise ValidationError(self._wrong_form(text))
        return text

    def _wrong_form(self, text: str) -> Message:
        if not re.fullmatch(MANY_LINES, text):
            return Message("invalid_characters", "Contains a character that cannot be seen.")
        return Message("invalid_format", "May not begin or end with a space, nor contain a line break.")


class Name(Text):
    """A line of text that neither begins nor ends with a space."""

    def __init__(self, least: int, most: int, **kwargs: Any) -> None:
        super().__init__(least, most, pattern=NO_EDGE_SPACE, **kwargs)


class Email(Name):
    """An e-mail address; its exact form is judged where its normal form is made."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(3, EMAIL_LENGTH, **kwargs)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "email", "maxLength": self.most, "pattern": f"^{EMAIL_PATTERN}$"}


class Password(Text):
    """A secret text."""

    def __init__(self, most: int, **kwargs: Any) -> None:
        super().__init__(1, most, **kwargs)

    def json_schema(self) -> dict[str, Any]:
        return {**super().json_schema(), "format": "password", "writeOnly": True}


class NewPassword(Password):
    """A password to be kept; that it is long enough is judged where it is hashed, for every way in."""

    def json_schema(self) -> dict[str, Any]:
        return {**super().json_schema(), "minLength": current_app.config["PASSWORD_MIN_LENGTH"]}


class Flag(Strict):
    """`true` or `false`."""

    def json_schema(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError(Message("invalid_type", "Must be true or false."))
        return value


class Choice(Strict):
    """One of some words."""

    def __init__(self, choices: Iterable[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choices = tuple(choices)

    def json_schema(self) -> dict[str, Any]:
        return types.one_of(self.choices)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError(Message("invalid_type", "Must be a string."))
        if value not in self.choices:
            raise ValidationError(Message("invalid_choice", f"Use one of {', '.join(self.choices)}."))
        return value


class Choices(Strict):
    """A list of some of these words, each once, and at least one."""

    def __init__(self, choices: Iterable[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choice = Choice(choices)

    def json_schema(self) -> dict[str, Any]:
        bounds = {"minItems": 1, "maxItems": len(self.choice.choices), "uniqueItems": True}
        return {"type": "array", "items": self.choice.json_schema(), **bounds}

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> list[str]:
        if not isinstance(value, list):
            raise ValidationError(Message("invalid_type", "Must be a list."))
        if not value:
            raise ValidationError(Message("too_short", "Use at least one."))
        if len(value) > MAX_ITEMS:
            raise ValidationError(Message("too_long", f"Use at most {MAX_ITEMS} items."))
        faults = {}
        for number, item in enumerate(value):
            try:
                self.choice.deserialize(item)
            except ValidationError as error:
                faults[number] = error.messages
        if faults:
            raise ValidationError(faults)
        if len(set(value)) < len(value):
            raise ValidationError(Message("repeated", "Name each once."))
        return value


class Moment(Strict):
    """A time with its zone (RFC 3339 §5.6)."""

    def json_schema(self) -> dict[str, Any]:
        return types.Moment.schema

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> datetime:
        if not isinstance(value, str):
            raise ValidationError(Message("invalid_type", "Must be a string."))
        try:
            return types.Moment()(value)
        except ValueError as error:
            raise ValidationError(Message("invalid_format", str(error))) from None


class JsonObject(Strict):
    """A small object of strings, numbers, booleans, lists of these, and further objects, three levels in all.

    With `patch`, a member that is null is one to remove (RFC 7396).
    """

    LEVELS = 3
    NAME = {"minLength": 1, "maxLength": 80, "pattern": f"^{ONE_LINE}$"}
    SCALARS = [
        {"type": "string", "maxLength": MAX_TEXT, "pattern": f"^{MANY_LINES}$"},
        {"type": "number", "minimum": -LARGEST, "maximum": LARGEST},
        {"type": "boolean"},
    ]

    def __init__(self, *, patch: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patch = patch

    @property
    def component(self) -> str:
        """Return the name under which its schema, which is long, stands in the documentation."""
        return "MetadataPatch" if self.patch else "Metadata"

    def json_schema(self, levels: int = LEVELS) -> dict[str, Any]:
        values = [*self.SCALARS, {"type": "array", "maxItems": MAX_ITEMS, "items": {"anyOf": self.SCALARS}}]
        if self.patch:
            values.append({"type": "null"})
        if levels > 1:
            values.append(self.json_schema(levels - 1))
        members = {"propertyNames": self.NAME, "additionalProperties": {"anyOf": values}}
        return {"type": "object", "maxProperties": MAX_MEMBERS, **members}

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise ValidationError(Message("invalid_type", "Must be an object."))
        return self._object(value, self.LEVELS)

    def _object(self, value: dict[str, Any], levels: int) -> dict[str, Any]:
        if len(value) > MAX_MEMBERS:
            raise ValidationError(Message("too_long", f"Use at most {MAX_MEMBERS} members."))
        if not levels:
            raise ValidationError(Message("too_deep", f"Use at most {self.LEVELS} levels."))
        result: dict[str, Any] = {}
        faults = {}
        for given, member in value.items():
            try:
                name = self._name(given)
                if name in result:
                    raise ValidationError(Message("repeated", "Another name is the same in Unicode NFC."))
                result[name] = self._member(member, levels)
            except ValidationError as error:
                faults[given] = error.messages
        if faults:
            raise ValidationError(faults)
        return result

    def _name(self, given: str) -> str:
        name = _normal(given, 80)
        if not 0 < len(name) <= 80 or not re.fullmatch(ONE_LINE, name):
            raise ValidationError(Message("invalid_format", "A name has 1 to 80 characters that can be seen."))
        return name

    def _member(self, value: Any, levels: int) -> Any:
        if isinstance(value, dict):
            return self._object(value, levels - 1)
        if value is None and self.patch:
            return None
        if not isinstance(value, list):
            return self._scalar(value)
        if len(value) > MAX_ITEMS:
            raise ValidationError(Message("too_long", f"Use at most {MAX_ITEMS} items."))
        return [self._scalar(item) for item in value]

    def _scalar(self, value: Any) -> Any:
        if isinstance(value, str):
            text = _normal(value, MAX_TEXT)
            if len(text) > MAX_TEXT:
                raise ValidationError(Message("too_long", f"Use at most {MAX_TEXT} characters."))
            if not re.fullmatch(MANY_LINES, text):
                raise ValidationError(Message("invalid_characters", "Contains a character that cannot be seen."))
            return text
        if isinstance(value, bool) or (isinstance(value, (int, float)) and -LARGEST <= value <= LARGEST):
            return value
        raise ValidationError(Message("invalid_type", "Use a string, a boolean, or a number of a size below 2^53."))
