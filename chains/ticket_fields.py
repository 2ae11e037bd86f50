"""Reads the fields of a ticket that patterns can find; which team takes it is left to a prompt.

The `python` step of ticket_fields.chain.yaml. A function for a step takes the names under `with:` as
keyword arguments and returns a value that JSON can hold.
"""

from __future__ import annotations

import re

ORDER = re.compile(r"\bLL[ -]?(\d{5})\b|\border\s+(?:(?:no|number|nr)\b\.?|#)?\s*(\d{5})\b", re.IGNORECASE)

CURRENCIES = {
    "£": "GBP", "gbp": "GBP", "pound": "GBP", "pounds": "GBP", "quid": "GBP",
    "€": "EUR", "eur": "EUR", "euro": "EUR", "euros": "EUR",
    "$": "USD", "usd": "USD", "dollar": "USD", "dollars": "USD",
}  # fmt: skip
_SIGN = r"[£€$]"
_WORD = "|".join(sorted((name for name in CURRENCIES if name.isalpha()), key=len, reverse=True))
_NUMBER = r"\d{1,9}(?:[.,]\d{1,3}){0,3}"  # short enough to stay finite as a float
AMOUNT = re.compile(
    rf"(?P<sign>{_SIGN})\s?(?P<after_sign>{_NUMBER})"
    rf"|(?P<before_unit>{_NUMBER})\s?(?P<unit>{_SIGN}|(?:{_WORD})\b)",
    re.IGNORECASE,
)

MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_MONTH = "|".join(f"{name[:3]}(?:{name[3:]})?" for name in MONTHS)
ISO_DATE = re.compile(r"\b\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])\b")
SLASHED_DATE = re.compile(r"\b(0?[1-9]|[12]\d|3[01])/(0?[1-9]|1[0-2])/(\d{4})\b")
NAMED_DATE = re.compile(
    rf"\b([1-9]|[12]\d|3[01])(?:st|nd|rd|th)?(?:\s+of)?\s+({_MONTH})\b(?:\s+(\d{{4}})\b)?", re.IGNORECASE
)

QUOTED = re.compile(r"[\"“]([A-Z][^\"“”\n]{1,40})[\"”]")


def parse_fields(*, ticket: str) -> dict[str, str | float | None]:
    """Return order, amount, currency, date and product of a ticket; None for what it does not say.

    Where a ticket names several, the first one is taken: cheap, and wrong for some of the `edge` cases.
    """
    amount, currency = find_amount(ticket)
    return {
        "order": find_order(ticket),
        "amount": amount,
        "currency": currency,
        "date": find_date(ticket),
        "product": find_product(ticket),
    }


def find_order(ticket: str) -> str | None:
    """Return the first order number in the shop's own spelling, as in `LL-48213`."""
    found = ORDER.search(ticket)
    return f"LL-{found[1] or found[2]}" if found else None


def find_amount(ticket: str) -> tuple[float | None, str | None]:
    """Return the first sum that has a currency, and the currency's ISO 4217 code."""
    found = AMOUNT.search(ticket)
    if found is None:
        return None, None
    currency = CURRENCIES[(found["sign"] or found["unit"]).lower()]
    return read_number(found["after_sign"] or found["before_unit"]), currency


def read_number(text: str) -> float:
    """Return the number in `1,290`, `1.290,00` or `64,90`: one or two last digits are the fraction."""
    *whole, last = re.split(r"[.,]", text)
    if whole and len(last) < 3:
        return float("".join(whole) + "." + last)
    return float("".join([*whole, last]))


def find_date(ticket: str) -> str | None:
    """Return the first date as YYYY-MM-DD, or --MM-DD where it has no year; 3/2/2026 is in February."""
    if found := ISO_DATE.search(ticket):
        return found[0]
    if found := SLASHED_DATE.search(ticket):
        return f"{found[3]}-{int(found[2]):02}-{int(found[1]):02}"
    if found := NAMED_DATE.search(ticket):
        month = [name[:3] for name in MONTHS].index(found[2][:3].lower()) + 1
        return f"{found[3] or '-'}-{month:02}-{int(found[1]):02}"
    return None


def find_product(ticket: str) -> str | None:
    """Return the first name in quotation marks that starts with a capital letter."""
    found = QUOTED.search(ticket)
    return found[1] if found else None
