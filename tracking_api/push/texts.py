"""The texts of notifications, by language. They name neither the address nor the contents."""

from __future__ import annotations

from tracking_api.push.notifier import Kind

DEFAULT_LANGUAGE = "en"
TITLES: dict[str, dict[Kind, str]] = {
    "en": {"nearby": "Your courier is nearby", "delivered": "Your order was delivered"},
    "it": {"nearby": "Il corriere sta arrivando", "delivered": "L’ordine è stato consegnato"},
    "fr": {"nearby": "Votre livreur arrive", "delivered": "Votre commande a été livrée"},
    "de": {"nearby": "Ihr Kurier ist gleich da", "delivered": "Ihre Bestellung wurde zugestellt"},
}


def title_of(kind: Kind, language: str) -> str:
    """Return a notification's title in the language of a page, else in English."""
    code = language[:2].lower()
    return TITLES.get(code, TITLES[DEFAULT_LANGUAGE])[kind]
