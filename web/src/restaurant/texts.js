// What the restaurant's page says, in the device's language. A text with a value is a function.
import { languageOf, localeOf } from "../language.js";

const EN = {
  signedIn: (name) => `Signed in as ${name}`, notSignedOut: () => "Not signed out: try again",
  signOut: "Sign out", soundOn: "Sound is on", soundOff: "Turn the sound on", fresh: "New orders", kitchen: "In the kitchen",
  gone: "Picked up and ended", none: "No order right now", title: "Orders", confirm: "Confirm", readyIn: "Confirm, ready in",
  minutes: (n) => `${n} min`, ready: "Ready now", later: (n) => `${n} min later`, readyAt: (t) => `Ready at ${t}`,
  isReady: (t) => `Ready since ${t}`, noReady: "No time set yet", scheduled: (t) => `For ${t}`, promised: (t) => `Promised by ${t}`,
  ordered: (t) => `Ordered at ${t}`, noCourier: "No courier yet", comes: (who, t) => `${who} arrives at about ${t}`,
  comesLater: (who) => `${who} is coming; another stop may be first`, here: (who) => `${who} is here`, order: "Order",
  arrived: (who, what) => `${who} is here for ${what}`, added: (n) => (n === 1 ? "A new order has come" : `${n} new orders have come`),
  refused: "This was not accepted: the order has changed.", failed: "This did not reach the server. Try again.",
  offline: (t) => `No connection since ${t}. Retrying…`,
  states: { picked_up: "Picked up", delivered: "Delivered", cancelled: "Cancelled", failed: "Not delivered" },
};
const IT = {
  signedIn: (name) => `Accesso come ${name}`, notSignedOut: () => "Uscita non riuscita: riprova",
  signOut: "Esci", soundOn: "Il suono è attivo", soundOff: "Attiva il suono", fresh: "Nuovi ordini", kitchen: "In cucina",
  gone: "Ritirati e conclusi", none: "Nessun ordine al momento", title: "Ordini", confirm: "Conferma", readyIn: "Conferma, pronto tra",
  minutes: (n) => `${n} min`, ready: "È pronto", later: (n) => `${n} min dopo`, readyAt: (t) => `Pronto alle ${t}`,
  isReady: (t) => `Pronto dalle ${t}`, noReady: "Nessun orario indicato", scheduled: (t) => `Per le ${t}`, promised: (t) => `Promesso entro le ${t}`,
  ordered: (t) => `Ordinato alle ${t}`, noCourier: "Nessun corriere per ora", comes: (who, t) => `${who} arriva verso le ${t}`,
  comesLater: (who) => `${who} sta arrivando; forse prima ha un'altra tappa`, here: (who) => `${who} è qui`, order: "Ordine",
  arrived: (who, what) => `${who} è qui per ${what}`, added: (n) => (n === 1 ? "È arrivato un nuovo ordine" : `Sono arrivati ${n} nuovi ordini`),
  refused: "Non è stato accettato: l'ordine è cambiato.", failed: "Il server non è stato raggiunto. Riprova.",
  offline: (t) => `Nessuna connessione dalle ${t}. Nuovo tentativo…`,
  states: { picked_up: "Ritirato", delivered: "Consegnato", cancelled: "Annullato", failed: "Non consegnato" },
};
const FR = {
  signedIn: (name) => `Connecté en tant que ${name}`, notSignedOut: () => "Échec de la déconnexion : réessaie",
  signOut: "Se déconnecter", soundOn: "Le son est activé", soundOff: "Activer le son", fresh: "Nouvelles commandes", kitchen: "En cuisine",
  gone: "Retirées et terminées", none: "Aucune commande pour l'instant", title: "Commandes", confirm: "Confirmer", readyIn: "Confirmer, prête dans",
  minutes: (n) => `${n} min`, ready: "C'est prêt", later: (n) => `${n} min plus tard`, readyAt: (t) => `Prête à ${t}`,
  isReady: (t) => `Prête depuis ${t}`, noReady: "Pas encore d'heure", scheduled: (t) => `Pour ${t}`, promised: (t) => `Promise avant ${t}`,
  ordered: (t) => `Commandée à ${t}`, noCourier: "Pas encore de livreur", comes: (who, t) => `${who} arrive vers ${t}`,
  comesLater: (who) => `${who} arrive ; peut-être après un autre arrêt`, here: (who) => `${who} est là`, order: "Commande",
  arrived: (who, what) => `${who} est là pour ${what}`, added: (n) => (n === 1 ? "Une nouvelle commande est arrivée" : `${n} nouvelles commandes sont arrivées`),
  refused: "Ce n'a pas été accepté : la commande a changé.", failed: "Le serveur n'a pas été joint. Réessaie.",
  offline: (t) => `Pas de connexion depuis ${t}. Nouvel essai…`,
  states: { picked_up: "Retirée", delivered: "Livrée", cancelled: "Annulée", failed: "Non livrée" },
};
const DE = {
  signedIn: (name) => `Angemeldet als ${name}`, notSignedOut: () => "Nicht abgemeldet: noch einmal versuchen",
  signOut: "Abmelden", soundOn: "Der Ton ist an", soundOff: "Ton einschalten", fresh: "Neue Bestellungen", kitchen: "In der Küche",
  gone: "Abgeholt und beendet", none: "Gerade keine Bestellung", title: "Bestellungen", confirm: "Bestätigen", readyIn: "Bestätigen, fertig in",
  minutes: (n) => `${n} min`, ready: "Jetzt fertig", later: (n) => `${n} min später`, readyAt: (t) => `Fertig um ${t}`,
  isReady: (t) => `Fertig seit ${t}`, noReady: "Noch keine Zeit gesetzt", scheduled: (t) => `Für ${t}`, promised: (t) => `Zugesagt bis ${t}`,
  ordered: (t) => `Bestellt um ${t}`, noCourier: "Noch kein Kurier", comes: (who, t) => `${who} kommt gegen ${t}`,
  comesLater: (who) => `${who} kommt; vielleicht ist ein anderer Halt zuerst`, here: (who) => `${who} ist da`, order: "Bestellung",
  arrived: (who, what) => `${who} ist da für ${what}`, added: (n) => (n === 1 ? "Eine neue Bestellung ist da" : `${n} neue Bestellungen sind da`),
  refused: "Das wurde nicht angenommen: Die Bestellung hat sich geändert.", failed: "Der Server wurde nicht erreicht. Versuche es noch einmal.",
  offline: (t) => `Keine Verbindung seit ${t}. Neuer Versuch…`,
  states: { picked_up: "Abgeholt", delivered: "Geliefert", cancelled: "Storniert", failed: "Nicht zugestellt" },
};

const LANGUAGES = { en: EN, it: IT, fr: FR, de: DE };
export const language = languageOf(LANGUAGES);
export const locale = localeOf(language);
export const texts = LANGUAGES[language];

/** A time of day in the restaurant's zone, with the zone where the device's differs. */
export function timeFormat(timeZone) {
  const here = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const now = new Date();
  const offset = (zone) => new Intl.DateTimeFormat("en", { timeZone: zone, timeZoneName: "longOffset" }).format(now);
  const timeZoneName = offset(here) === offset(timeZone) ? undefined : "short";
  const format = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", timeZone, timeZoneName });
  return (instant) => format.format(new Date(instant));
}
