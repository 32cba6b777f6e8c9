"""From the text of a CSV file to orders and complaints, line by line. A bad line never stops the others."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from django import forms

from .models import Order, RejectedLine
from .order_columns import COLUMNS

Line = Order | RejectedLine


class OrderLineForm(forms.ModelForm):
    """Checks one line."""

    class Meta:
        model = Order
        fields = COLUMNS


def count_lines(text: str) -> int:
    """Count lines as the reader of CSV does."""
    return sum(1 for _ in io.StringIO(text, newline=""))


def missing_columns(text: str) -> list[str]:
    """Return the columns that the header of the file does not have."""
    try:
        header = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True).fieldnames
    except csv.Error:
        header = None
    present = {name.strip() for name in header or []}
    return [name for name in COLUMNS if name not in present]


def read_lines(text: str) -> Iterator[Line]:
    """Yield an unsaved order or rejection, without its upload, for each line that is not empty."""
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield RejectedLine(line=reader.line_num, problem=f"This is no CSV: {error}.")
        else:
            yield _read(values, reader.line_num)


def _read(values: dict[str, str], line: int) -> Line:
    # DictReader puts what is beyond the header's columns under None.
    if None in values:
        return RejectedLine(line=line, problem="There are more values than columns.")
    form = OrderLineForm(values)
    if not form.is_valid():
        problems = [f"{name}: {' '.join(map(str, messages))}" for name, messages in form.errors.items()]
        return RejectedLine(line=line, problem="; ".join(problems)[:300])
    order: Order = form.save(commit=False)
    order.line = line
    return order
