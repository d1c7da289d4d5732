// The texts of failed requests: as the server says them in English, else by their type.
import { ApiProblem } from "./api.js";
import { language, say } from "./texts.js";

/** A text by a key that depends on the answer; `otherwise` where the page has none. */
function textOf(key, otherwise) {
  const text = say(key);
  return text === key ? otherwise : text;
}

/** A refusal's text; `detail` is the server's, in English. */
export function problemText({ type }, detail) {
  if (language === "en") return detail;
  return textOf(`problem ${type?.split("/").at(-1)}`, say("The server refused this: {}", detail));
}

/** What is wrong with a field or a line. */
export const complaintText = ({ msg, reason }) => textOf(`reason ${reason}`, msg);

/** What is wrong with each field or line of what was sent. */
export function complaintsOf({ errors }) {
  return (errors ?? []).map((one) => {
    const place = String(one.loc).replace(/^line (\d+)/, (_, line) => say("line {}", line));
    return `${place}: ${complaintText(one)}`;
  });
}

/** The text of what a request threw. */
export function failureText(error) {
  if (error instanceof ApiProblem) return problemText(error.problem, error.message);
  return language === "en" ? error.message : say("The server does not answer. Try again in a moment.");
}
