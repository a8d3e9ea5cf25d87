// An MLX90393 on I2C, as its commands behave (Melexis 3901090393): each is acknowledged by a status byte; a single
// measurement takes the time that OSR and DIG_FILT say; reading before it is over is an error.
const EX = 0x80, SM = 0x30, RM = 0x40, RR = 0x50, WR = 0x60, RT = 0xf0;
const ERROR = 0x10, SINGLE = 0x20, RESET = 0x04;
const RESET_NANOS = 1.5e6, AWAKEN_US = 432 + 220;

export class Mlx90393 {
  /** `sample(t_ns, values)` is told of every measurement that was read. */
  constructor(clock, { random, sample }) {
    Object.assign(this, { clock, random, sample });
    this.present = true;
    this.violations = [];
    this.reset();
  }
  reset() {
    this.registers = new Uint16Array(64);
    this.registers[0] = 0x000c;
    this.readyAt = this.clock.nanos + RESET_NANOS;
    this.measured = null;
    this.heard = [];
    this.answer = [];
    this.wasReset = true; // told by one status byte
  }
  // Its supply was away for a moment: what it was told is forgotten.
  powerUp() {
    this.reset();
    this.readyAt = 0;
  }
  status(bits) {
    const told = bits | (this.wasReset ? RESET : 0);
    this.wasReset = false;
    return told;
  }
  conversionUs() {
    const osr = this.registers[2] & 3, filter = (this.registers[2] >> 2) & 7;
    return AWAKEN_US + 3 * (67 + 64 * 2 ** osr * (2 + 2 ** filter));
  }
  begin() {
    this.heard = [];
  }
  write(byte) {
    this.heard.push(byte);
    this.answer = this.obey() ?? this.answer;
  }
  read() {
    return this.answer.length ? this.answer.shift() : 0xff;
  }
  obey() {
    const [op, ...args] = this.heard;
    const now = this.clock.nanos;
    if (now < this.readyAt && op !== EX) this.violations.push(`command ${op.toString(16)} during reset`);
    if (op === EX) return [this.status(0)];
    if (op === RT) return this.reset(), [this.status(0)];
    if ((op & 0xf0) === RR) {
      if (args.length < 1) return null;
      const value = this.registers[args[0] >> 2];
      return [this.status(0), value >> 8, value & 0xff];
    }
    if ((op & 0xf0) === WR) {
      if (args.length < 3) return null;
      this.registers[args[2] >> 2] = (args[0] << 8) | args[1];
      return [this.status(0)];
    }
    if ((op & 0xf0) === SM) {
      this.measured = {
        begun: now,
        until: now + this.conversionUs() * 1e3,
        values: Array.from({ length: 3 }, () => Math.floor(this.random() * 65536) - 32768),
      };
      return [this.status(SINGLE)];
    }
    if ((op & 0xf0) === RM) {
      const done = this.measured;
      if (!done || now < done.until) return [this.status(ERROR), ...Array(6).fill(0)];
      this.measured = null;
      this.sample(done.begun, done.values);
      return [this.status(0), ...done.values.flatMap((v) => [(v >> 8) & 0xff, v & 0xff])];
    }
    return [this.status(ERROR)];
  }
}
