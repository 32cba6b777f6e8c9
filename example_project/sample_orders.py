"""Writes the sample files in ``data/``: made up, the same at every run. ``python -m example_project.sample_orders``."""

from __future__ import annotations

import csv
import random
import unicodedata
from datetime import date, timedelta
from pathlib import Path

from .shop.order_columns import COLUMNS

DATA = Path(__file__).with_name("data")
FIRST_NAMES = [
    "Ada",
    "Alma",
    "Amara",
    "Anton",
    "Aoife",
    "Bjarne",
    "Bruno",
    "Carla",
    "Chidi",
    "Clara",
    "Dmitri",
    "Edith",
    "Elif",
    "Emil",
    "Esra",
    "Farid",
    "Femke",
    "Gianna",
    "Greta",
    "Hana",
    "Hugo",
    "Ines",
    "Ivo",
    "Jonas",
    "José",
    "Kaito",
    "Karim",
    "Leïla",
    "Lena",
    "Luca",
    "Maja",
    "Marek",
    "Mina",
    "Nadia",
    "Noor",
    "Olga",
    "Otto",
    "Paula",
    "Pedro",
    "Quentin",
    "Rania",
    "Rosa",
    "Sami",
    "Sofia",
    "Stéphane",
    "Tariq",
    "Theo",
    "Uma",
    "Vera",
    "Wanda",
    "Yara",
    "Yuki",
    "Zoë",
]
LAST_NAMES = [
    "Almeida",
    "Andersson",
    "Bauer",
    "Bianchi",
    "Brown",
    "Costa",
    "Dubois",
    "Eriksen",
    "Fernández",
    "Fischer",
    "Garcia",
    "Grünwald",
    "Haddad",
    "Hansen",
    "Horvat",
    "Ivanova",
    "Janssen",
    "Jensen",
    "Kaya",
    "Keller",
    "Kowalska",
    "Kumar",
    "Lambert",
    "Larsen",
    "Lindqvist",
    "Marino",
    "Meyer",
    "Moreau",
    "Nakamura",
    "Novák",
    "O'Brien",
    "Okafor",
    "Olsen",
    "Papadopoulos",
    "Petrov",
    "Ricci",
    "Rossi",
    "Sánchez",
    "Schmidt",
    "Silva",
    "Smith",
    "Sørensen",
    "Takahashi",
    "Tóth",
    "Van-Dijk",
    "Virtanen",
    "Weber",
    "Wójcik",
    "Yılmaz",
    "Zimmermann",
]
COUNTRIES = {"Germany": 30, "France": 22, "Netherlands": 14, "Spain": 12, "Denmark": 8, "Poland": 8, "Ireland": 6}
PRODUCTS = {
    "Moka pot, 6 cups": "34.90",
    "Hand coffee grinder": "89.00",
    "Espresso cup, stoneware": "12.50",
    "Single-origin beans, 500 g": "14.90",
    "Decaf beans, 250 g": "8.40",
    "Paper filters, 100 pieces": "4.20",
    "Gooseneck kettle, 0.9 l": "64.00",
    "Milk pitcher, 350 ml": "18.75",
    "Cold brew bottle, 1 l": "27.30",
    "Tasting spoon": "6.95",
    'Scale with timer, 0.1 g "Pocket"': "42.00",
    "Gift card": "50.00",
}
# What people do to CSV files: each replaces one value of a good line.
MISTAKES = [
    ("email", "no e-mail"),
    ("quantity", "two"),
    ("unit_price", "12,50"),
    ("ordered_on", "31/02/2026"),
    ("customer", ""),
    ("quantity", "0"),
]
FIRST_DAY = date(2026, 1, 1)


def sample(size: int, seed: int) -> list[dict[str, str]]:
    """Return ``size`` good lines."""
    chance = random.Random(seed)
    return [_line(chance, index) for index in range(size)]


def with_mistakes(lines: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the lines with one of MISTAKES in each fifth."""
    lines = [dict(line) for line in lines]
    for line, (column, value) in zip(lines[3::5], MISTAKES, strict=False):
        line[column] = value
    return lines


def _line(chance: random.Random, index: int) -> dict[str, str]:
    first, last = chance.choice(FIRST_NAMES), chance.choice(LAST_NAMES)
    product = chance.choice(list(PRODUCTS))
    day = FIRST_DAY + timedelta(days=chance.randrange(90))
    return {
        "number": f"HR-{26000 + index:06d}",
        "ordered_on": day.isoformat(),
        "customer": f"{first} {last}",
        "email": f"{_plain(first)}.{_plain(last)}{chance.randrange(10, 99)}@example.com",
        "country": chance.choices(list(COUNTRIES), weights=list(COUNTRIES.values()))[0],
        "product": product,
        "quantity": str(chance.choices([1, 2, 3, 4, 6, 12], weights=[60, 20, 8, 6, 4, 2])[0]),
        "unit_price": PRODUCTS[product],
    }


def _plain(name: str) -> str:
    """Return the name as it may stand in an e-mail address."""
    letters = unicodedata.normalize("NFKD", name.lower().replace("ø", "o").replace("ı", "i"))
    return "".join(letter for letter in letters if letter.isascii() and letter.isalnum())


def files() -> dict[str, list[dict[str, str]]]:
    """Return the lines of each sample by its file name."""
    return {
        "orders-25.csv": sample(25, seed=1),
        "orders-with-mistakes.csv": with_mistakes(sample(40, seed=2)),
        "orders-5000.csv": sample(5000, seed=3),
    }


def main() -> None:
    for name, lines in files().items():
        with (DATA / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)


if __name__ == "__main__":
    main()
