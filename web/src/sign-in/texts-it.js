// The sign-in page in Italian, by its English texts.
export default {
  "Sign in": "Accedi",
  "Sign in to Doorstep": "Accedi a Doorstep",
  "Staff token": "Token del personale",
  "You stay signed in for 12 hours, or until you sign out. An admin gives you a token:":
    "L'accesso dura 12 ore, o fino all'uscita. Il token si riceve da un amministratore:",
  "Your session has ended. Sign in again to continue.": "La sessione è terminata. Accedi di nuovo per continuare.",
  "Too many attempts. Try again in {} s.": "Troppi tentativi. Riprova tra {} s.",
  "The server does not accept pages from {}. Open its own address.":
    "Il server non accetta pagine da {}. Apri il suo indirizzo.",
  "The server cannot check the token now. Try again in a moment.":
    "Il server non può verificare il token adesso. Riprova tra poco.",
  "This token is not valid: it is mistyped, expired or revoked. An admin can replace it.":
    "Questo token non è valido: è scritto male, scaduto o revocato. Un amministratore può sostituirlo.",
  "The server does not answer. Check the connection and try again.":
    "Il server non risponde. Controlla la connessione e riprova.",
};
