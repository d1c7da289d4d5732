// The page of reports in Italian, by its English texts.
export default {
  Day: "Giorno",
  "Download CSV": "Scarica CSV",
  Print: "Stampa",
  "Counting…": "Conteggio…",
  ": the day is not over": ": la giornata non è finita",
  "The server does not answer. Choose the day again.": "Il server non risponde. Scegli di nuovo il giorno.",
  "The server does not answer. Reload the page.": "Il server non risponde. Ricarica la pagina.",

  // orders
  Orders: "Ordini",
  Created: "Creati",
  Delivered: "Consegnati",
  Failed: "Falliti",
  Cancelled: "Annullati",
  "Still open": "Ancora aperti",

  // the promised window
  "Against the promised window": "Rispetto alla fascia promessa",
  "With a window": "Con fascia",
  "In it": "Nella fascia",
  Early: "In anticipo",
  Late: "In ritardo",
  "Late by, median": "Ritardo mediano",
  "Late by, most": "Ritardo massimo",
  "Open and late": "Aperti, in ritardo",

  // stages
  "Time per stage": "Tempo per fase",
  Stage: "Fase",
  Median: "Mediana",
  "90 % within": "90 % entro",
  "Until confirmed": "Fino alla conferma",
  "Until a courier is found": "Fino al corriere",
  "To the restaurant": "Verso il ristorante",
  "At the restaurant": "Al ristorante",
  "To the customer": "Verso il cliente",
  "At the door": "Alla porta",
  "In all": "In tutto",

  // restaurants and reasons
  Restaurants: "Ristoranti",
  Restaurant: "Ristorante",
  "Failed and cancelled": "Falliti e annullati",
  What: "Esito",
  By: "Da",
  Reason: "Motivo",
  staff: "personale",
  courier: "corriere",
  customer: "cliente",
  "none given": "nessuno",

  // drivers
  Drivers: "Corrieri",
  Driver: "Corriere",
  "Given up": "Rinunciati",
  Kilometres: "Chilometri",
  "There are more drivers than a report shows.": "I corrieri sono più di quanti ne mostra un resoconto.",
  "None.": "Nessuno.",
};
