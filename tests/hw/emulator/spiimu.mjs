// What the IMUs here have in common: bytes over SPI, an oscillator of their own, pulses on interrupt 1, notes of what
// their datasheets forbid.
const PERIOD_NANOS = 1e6;

export class SpiImu {
  violations = [];
  present = true;
  frozen = false;

  /** `int1(level)` drives the interrupt pin; `sample(t_ns, values)` is told of every sample. */
  constructor(clock, whoAmI, fifoBytes, { int1, sample, random, ppm = 0 }) {
    Object.assign(this, { clock, whoAmI, fifoBytes, int1, sample, random, ppm });
    this.tick = clock.createAlarm(() => this.measure());
    this.fall = clock.createAlarm(() => this.int1(false));
  }
  /** As after power-up; registers may be read once `nanos` have passed. */
  restart(nanos) {
    this.registers = new Uint8Array(128);
    this.fifo = [];
    this.selected = false;
    this.address = null;
    this.readyAt = this.clock.nanos + nanos;
    this.tick.cancel();
  }
  scheduleSample() {
    this.tick.schedule(PERIOD_NANOS * (1 + this.ppm * 1e-6));
  }
  randomValues() {
    return Array.from({ length: 6 }, () => Math.floor(this.random() * 65535) - 32767);
  }
  pulse(nanos) {
    this.int1(true);
    this.fall.schedule(nanos);
  }
  select(selected) {
    this.selected = selected;
    this.address = null;
  }
  /** One byte in, one byte out. */
  exchange(byte) {
    if (!this.selected || !this.present) return 0;
    if (this.address === null) {
      this.reading = !!(byte & 0x80);
      this.address = byte & 0x7f;
      return 0;
    }
    const value = this.reading ? this.read(this.address) : this.write(this.address, byte);
    this.address = this.after(this.address);
    return value;
  }
}
