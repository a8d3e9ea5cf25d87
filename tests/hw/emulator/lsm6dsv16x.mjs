// An LSM6DSV16X on SPI, as its registers behave (ST DS13510, main page): software reset, 1 kHz in high-accuracy mode
// from its own oscillator, a FIFO of tagged words, pulses of new samples on interrupt 1. What the datasheet forbids is
// noted. Words of one sample come as time stamp, gyroscope, accelerometer.
import { SpiImu } from './spiimu.mjs';

const R = {
  IF_CFG: 0x03, FIFO_CTRL3: 0x09, FIFO_CTRL4: 0x0a, INT1_CTRL: 0x0d, WHO_AM_I: 0x0f, CTRL1: 0x10, CTRL2: 0x11,
  CTRL3: 0x12, CTRL4: 0x13, CTRL6: 0x15, CTRL8: 0x17, FIFO_STATUS1: 0x1b, FIFO_STATUS2: 0x1c, FUNCTIONS_ENABLE: 0x50,
  HAODR_CFG: 0x62, TAG: 0x78, LAST: 0x7e,
};
const WORD = 7, PULSE_NANOS = 65e3, STAMP_NANOS = 21750, RESET_NANOS = 30e6;

export class Lsm6dsv16x extends SpiImu {
  torn = 0;

  constructor(clock, wires) {
    super(clock, 0x70, 219 * WORD, wires);
    this.reset(10e6);
  }
  reset(nanos) {
    this.restart(nanos);
    this.registers[R.CTRL3] = 0x44;
    this.count = 0;
  }
  get on() {
    return this.registers[R.CTRL1] === 0x19 && this.registers[R.CTRL2] === 0x19;
  }
  measure() {
    this.scheduleSample();
    if (this.frozen) return;
    const now = this.clock.nanos;
    const values = this.randomValues();
    const continuous = (this.registers[R.FIFO_CTRL4] & 0x07) === 0x06;
    if (continuous && this.registers[R.FIFO_CTRL3] === 0x99) {
      const stamp = Math.floor(now / STAMP_NANOS / (1 + this.ppm * 1e-6)) >>> 0;
      this.count = (this.count + 1) & 3;
      if ((this.registers[R.FIFO_CTRL4] & 0xc0) === 0x40 && this.registers[R.FUNCTIONS_ENABLE] & 0x40)
        this.push(0x04, (word) => word.writeUInt32LE(stamp, 1));
      this.push(0x01, (word) => values.slice(3).forEach((v, i) => word.writeInt16LE(v, 1 + 2 * i)));
      this.push(0x02, (word) => values.slice(0, 3).forEach((v, i) => word.writeInt16LE(v, 1 + 2 * i)));
    }
    this.sample(now, values);
    if (this.registers[R.INT1_CTRL] & 0x02 && this.registers[R.CTRL4] & 0x02) this.pulse(PULSE_NANOS);
  }
  push(tag, fill) {
    const word = Buffer.alloc(WORD);
    word[0] = (tag << 3) | (this.count << 1);
    fill(word);
    this.fifo.push(...word);
    while (this.fifo.length > this.fifoBytes) this.fifo.splice(0, WORD);
  }
  select(selected) {
    super.select(selected);
    // A word is gone from the FIFO once any of it was read.
    this.fifo.splice(0, this.torn);
    this.torn = 0;
  }
  /** The FIFO's word begins again where it ends; elsewhere addresses count up, if they are told to. */
  after(address) {
    if (address === R.LAST) return R.TAG;
    return this.registers[R.CTRL3] & 0x04 ? (address + 1) & 0x7f : address;
  }
  read(address) {
    if (this.clock.nanos < this.readyAt) this.violations.push(`read of ${address.toString(16)} during reset`);
    const words = Math.floor(this.fifo.length / WORD);
    if (address >= R.TAG && address <= R.LAST) {
      if (!this.fifo.length) return 0;
      this.torn = R.LAST - address;
      return this.fifo.shift();
    }
    switch (address) {
      case R.FIFO_STATUS1: return words & 0xff;
      case R.FIFO_STATUS2: return (words >> 8) & 0x01;
      case R.WHO_AM_I: return this.whoAmI;
      default: return this.registers[address];
    }
  }
  write(address, value) {
    if (this.clock.nanos < this.readyAt) this.violations.push(`write of ${address.toString(16)} during reset`);
    if (address === R.CTRL3 && value & 1) return this.reset(RESET_NANOS), 0;
    const running = (this.registers[R.CTRL1] & 0x0f) || (this.registers[R.CTRL2] & 0x0f);
    if (address === R.HAODR_CFG && running) this.violations.push('rates chosen anew while a sensor runs');
    const before = this.on;
    if (address !== R.WHO_AM_I) this.registers[address] = value;
    if (address === R.FIFO_CTRL4 && (value & 0x07) === 0) this.fifo = [];
    if (this.on && !before) {
      if (this.registers[R.HAODR_CFG] !== 1) this.violations.push('1 kHz without its set of rates');
      this.scheduleSample();
    }
    return 0;
  }
}
