"""What customers are told, by language. The texts name neither the address nor the contents."""

from __future__ import annotations

from typing import Literal

Told = Literal["nearby", "delivered", "failed"]

DEFAULT_LANGUAGE = "en"
TITLES: dict[str, dict[Told, str]] = {
    "en": {
        "nearby": "Your courier is nearby",
        "delivered": "Your order was delivered",
        "failed": "Your order could not be delivered",
    },
    "it": {
        "nearby": "Il corriere sta arrivando",
        "delivered": "L’ordine è stato consegnato",
        "failed": "Non è stato possibile consegnare l’ordine",
    },
    "fr": {
        "nearby": "Votre livreur arrive",
        "delivered": "Votre commande a été livrée",
        "failed": "Votre commande n’a pas pu être livrée",
    },
    "de": {
        "nearby": "Ihr Kurier ist gleich da",
        "delivered": "Ihre Bestellung wurde zugestellt",
        "failed": "Ihre Bestellung konnte nicht zugestellt werden",
    },
}


def title_of(told: Told, language: str) -> str:
    """Return the text in a language, or in English if it has no texts."""
    return TITLES.get(code_of(language), TITLES[DEFAULT_LANGUAGE])[told]


def code_of(language: str) -> str:
    """Return `it` of `it-IT`."""
    return language.partition("-")[0].lower()
