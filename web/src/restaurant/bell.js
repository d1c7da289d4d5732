// The sound of a new order. A browser plays none before the page was touched once.
const NOTES_HZ = [880, 1175, 880, 1175];
const NOTE_S = 0.16;

export class Bell {
  #audio = null;

  get isOn() {
    return this.#audio?.state === "running";
  }

  /** Call it while the page is touched. Resolves to whether sounds are played from now on. */
  async turnOn() {
    this.#audio ??= new AudioContext();
    await this.#audio.resume();
    return this.isOn;
  }

  ring() {
    if (!this.isOn) return;
    NOTES_HZ.forEach((hertz, n) => {
      const begin = this.#audio.currentTime + n * NOTE_S;
      const tone = this.#audio.createOscillator();
      const volume = this.#audio.createGain();
      tone.frequency.value = hertz;
      volume.gain.setValueAtTime(0.25, begin);
      volume.gain.exponentialRampToValueAtTime(0.001, begin + NOTE_S);
      tone.connect(volume).connect(this.#audio.destination);
      tone.start(begin);
      tone.stop(begin + NOTE_S);
    });
  }
}
