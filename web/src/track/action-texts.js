// The texts of what a customer can do, by language.
const en = {
  pin: "PIN for the courier:", photo: "Photo of the delivery", note: "Note for the courier", save: "Save",
  noteSaved: "The note is saved.", callCourier: "Call the courier", textCourier: "Text the courier",
  callRestaurant: "Call the restaurant", notify: "Notify me", notified: "You will be notified.",
  notNotified: "This browser does not allow notifications.", share: "Share", unshare: "End sharing",
  unshared: "The shared link has ended.",
  shareWhat: "This link shows where the order is, but not your address:",
  cancel: "Cancel the order", reallyCancel: "Cancel this order?", yesCancel: "Yes, cancel", no: "No",
  cancelled: "The order is cancelled.", failed: "That did not work. Please try again.",
  hasRetry: "A new delivery was arranged.", followRetry: "Follow it",
};
const it = {
  pin: "PIN per il corriere:", photo: "Foto della consegna", note: "Nota per il corriere", save: "Salva",
  noteSaved: "La nota è salvata.", callCourier: "Chiama il corriere", textCourier: "Scrivi al corriere",
  callRestaurant: "Chiama il ristorante", notify: "Avvisami", notified: "Riceverai un avviso.",
  notNotified: "Questo browser non permette avvisi.", share: "Condividi", unshare: "Non condividere più",
  unshared: "Il link condiviso non vale più.",
  shareWhat: "Questo link mostra dov’è l’ordine, ma non il tuo indirizzo:",
  cancel: "Annulla l’ordine", reallyCancel: "Annullare l’ordine?", yesCancel: "Sì, annulla", no: "No",
  cancelled: "L’ordine è annullato.", failed: "Non ha funzionato. Riprova.",
  hasRetry: "È prevista una nuova consegna.", followRetry: "Seguila",
};
const fr = {
  pin: "Code pour le livreur :", photo: "Photo de la livraison", note: "Note pour le livreur",
  save: "Enregistrer", noteSaved: "La note est enregistrée.", callCourier: "Appeler le livreur",
  textCourier: "Écrire au livreur", callRestaurant: "Appeler le restaurant", notify: "Me prévenir",
  notified: "Vous serez prévenu.", notNotified: "Ce navigateur n’autorise pas les notifications.",
  share: "Partager", unshare: "Ne plus partager", unshared: "Le lien partagé n’est plus valable.",
  shareWhat: "Ce lien montre où est la commande, mais pas votre adresse :",
  cancel: "Annuler la commande", reallyCancel: "Annuler cette commande ?", yesCancel: "Oui, annuler",
  no: "Non", cancelled: "La commande est annulée.", failed: "Cela n’a pas marché. Réessayez.",
  hasRetry: "Une nouvelle livraison est prévue.", followRetry: "La suivre",
};
const de = {
  pin: "PIN für den Kurier:", photo: "Foto der Zustellung", note: "Notiz für den Kurier",
  save: "Speichern", noteSaved: "Die Notiz ist gespeichert.", callCourier: "Kurier anrufen",
  textCourier: "Kurier schreiben", callRestaurant: "Restaurant anrufen", notify: "Benachrichtigen",
  notified: "Sie werden benachrichtigt.", notNotified: "Dieser Browser erlaubt keine Mitteilungen.",
  share: "Teilen", unshare: "Nicht mehr teilen", unshared: "Der geteilte Link gilt nicht mehr.",
  shareWhat: "Dieser Link zeigt, wo die Bestellung ist, aber nicht Ihre Adresse:",
  cancel: "Bestellung stornieren", reallyCancel: "Diese Bestellung stornieren?", yesCancel: "Ja, stornieren",
  no: "Nein", cancelled: "Die Bestellung ist storniert.", failed: "Das ging nicht. Bitte noch einmal.",
  hasRetry: "Eine neue Zustellung ist vereinbart.", followRetry: "Verfolgen",
};

export const ACTION_TEXTS = { en, it, fr, de };
