"""The upload of a CSV file: what is wrong with the file as a whole is said here, before a job sees it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile

from .order_columns import COLUMNS
from .order_lines import missing_columns

LARGEST_FILE = 10 * 1024 * 1024


class UploadForm(forms.Form):
    file = forms.FileField(
        label="CSV file of orders",
        help_text=f"With the columns {', '.join(COLUMNS)}; at most {LARGEST_FILE // 1024 // 1024} MB.",
        widget=forms.ClearableFileInput(attrs={"accept": ".csv,text/csv"}),
    )

    def clean_file(self) -> UploadedFile:
        file: UploadedFile = self.cleaned_data["file"]
        if file.size and file.size > LARGEST_FILE:
            raise ValidationError("The file is too large.")
        self.cleaned_data["text"] = decode(file.read())
        return file

    def clean(self) -> dict[str, Any]:
        missing = missing_columns(self.cleaned_data["text"]) if "text" in self.cleaned_data else []
        if missing:
            self.add_error("file", f"The first line does not name these columns: {', '.join(missing)}.")
        return self.cleaned_data


def decode(content: bytes) -> str:
    """Return the text of a file. Raise ValidationError for what is no text."""
    try:
        # Spreadsheets put a byte order mark at the beginning.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValidationError("The file is not text in UTF-8.") from error
    if "\x00" in text:
        raise ValidationError("The file contains a NUL character; is it a CSV file?")
    return text
