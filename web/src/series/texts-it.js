// The page of series in Italian, by its English texts.
export default {
  // the list
  "Select a series": "Scegli una serie",
  "Name begins with": "Il nome comincia con",
  "tickers/ or driver/": "tickers/ o driver/",
  More: "Altre",
  "No series with this name.": "Nessuna serie con questo nome.",
  "Nothing has been published yet. Set a number of tickers under “Simulated”.":
    "Non è stato ancora pubblicato niente. Imposta un numero di ticker sotto «Simulazione».",
  "Show {} below": "Mostra {} sotto",
  "Show below": "Mostra sotto",
  live: "in diretta",
  "not connected": "non connesso",

  // simulations
  Simulated: "Simulazione",
  Couriers: "Corrieri",
  "Vans in France": "Furgoni in Francia",
  Tickers: "Ticker",
  Set: "Imposta",
  "{}: set to {}; starts within seconds.": "{}: impostato a {}; comincia fra qualche secondo.",
  "Not set: {}": "Non impostato: {}",

  // the chart
  "No series selected": "Nessuna serie scelta",
  "Select one in the list; + shows a second one below it.": "Scegline una nell'elenco; + ne mostra una seconda sotto.",
  "What the chart shows": "Che cosa mostra il grafico",
  Last: "Ultimi",
  "1 day": "1 giorno",
  "7 days": "7 giorni",
  Live: "Diretta",
  Earlier: "Prima",
  Later: "Dopo",
  "Zoom in": "Ingrandisci",
  "Zoom out": "Riduci",
  From: "Da",
  to: "a",
  Show: "Mostra",
  "“From” must be before “to”.": "«Da» deve venire prima di «a».",
  Chart: "Grafico",
  "Second series": "Seconda serie",
  "Second chart": "Secondo grafico",
  "Drag to zoom, wheel to zoom about the pointer. Keys: ← → + −, Home for live.":
    "Trascina per ingrandire; la rotella ingrandisce attorno al puntatore. Tasti: ← → + −, Home per la diretta.",
  "Values as a table": "Valori in tabella",
  "The newest values on the chart": "I valori più recenti del grafico",
  Time: "Ora",
  Value: "Valore",
  "no value": "nessun valore",
  "no value yet": "ancora nessun valore",
  "at {}": "alle {}",
  "{} read": "{} letti",
};
