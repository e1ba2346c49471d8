// The choice of a model, where a server has several.  Another one is chosen with a reload; each has a session of its own.

import { remember, remembered } from "./remember.js";

const CHOSEN = "reverie.model";

/** The model that was chosen in this tab, or null. */
export const chosenModel = () => remembered(CHOSEN);

/** Forget the choice: the server chooses. */
export const forgetModel = () => remember(CHOSEN, null);

/** The name that a model's session is kept under. */
export const sessionOf = (model) => (model ? `reverie.session.${model}` : "reverie.session");

/** A <select>, whose row is hidden where there is nothing to choose. */
export class Models {
  constructor(select) {
    this.select = select;
    select.addEventListener("change", () => {
      remember(CHOSEN, select.value);
      location.reload();
    });
  }

  /** What the source has, by its welcome. */
  offer({ models = [], model_id: chosen }) {
    const hasChoice = models.length > 1;
    this.select.parentElement.hidden = !hasChoice;
    this.select.replaceChildren(...models.map(({ id, name }) => new Option(name, id, false, id === chosen)));
    if (hasChoice) remember(CHOSEN, chosen);
  }
}
