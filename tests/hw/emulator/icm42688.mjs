// An ICM-42688-P on SPI, as its registers behave (TDK DS-000347, user bank 0): soft reset, 1 kHz from its own
// oscillator, a 2 KB FIFO of 16-byte packets, data-ready pulses on interrupt 1. What the datasheet forbids is noted.
import { SpiImu } from './spiimu.mjs';

const R = {
  DEVICE_CONFIG: 0x11, INT_CONFIG: 0x14, FIFO_CONFIG: 0x16, INT_STATUS: 0x2d, FIFO_COUNTH: 0x2e, FIFO_COUNTL: 0x2f,
  FIFO_DATA: 0x30, SIGNAL_PATH_RESET: 0x4b, INTF_CONFIG0: 0x4c, PWR_MGMT0: 0x4e, GYRO_CONFIG0: 0x4f,
  ACCEL_CONFIG0: 0x50, TMST_CONFIG: 0x54, FIFO_CONFIG1: 0x5f, INT_CONFIG1: 0x64, INT_SOURCE0: 0x65, WHO_AM_I: 0x75,
  REG_BANK_SEL: 0x76,
};
const DEFAULTS = {
  [R.INTF_CONFIG0]: 0x30, [R.GYRO_CONFIG0]: 0x06, [R.ACCEL_CONFIG0]: 0x06, 0x51: 0x16, 0x52: 0x11, 0x53: 0x0d,
  [R.TMST_CONFIG]: 0x23, 0x63: 0x00, [R.INT_CONFIG1]: 0x10, [R.INT_SOURCE0]: 0x10, [R.WHO_AM_I]: 0x47,
};
const FIFO_BYTES = 2048, PACKET = 16, PULSE_NANOS = 100e3;

export class Icm42688 extends SpiImu {
  constructor(clock, wires) {
    super(clock, 0x47, FIFO_BYTES, wires);
    this.reset();
  }
  reset() {
    this.restart(1e6);
    for (const [address, value] of Object.entries(DEFAULTS)) this.registers[address] = value;
    this.quietUntil = 0;
  }
  get on() {
    return (this.registers[R.PWR_MGMT0] & 0x0f) === 0x0f;
  }
  measure() {
    this.scheduleSample();
    if (this.frozen) return;
    const now = this.clock.nanos;
    const values = this.randomValues();
    const packet = Buffer.alloc(PACKET);
    packet[0] = 0x68;
    values.forEach((value, i) => packet.writeInt16BE(value, 1 + 2 * i));
    packet[13] = 0;
    const stamp = Math.floor(now / 1000 / (1 + this.ppm * 1e-6));
    packet.writeUInt16BE(stamp & 0xffff, 14);
    if ((this.registers[R.FIFO_CONFIG] & 0xc0) === 0x40 && (this.registers[R.FIFO_CONFIG1] & 0x07) === 0x07) {
      this.fifo.push(...packet);
      while (this.fifo.length > this.fifoBytes) this.fifo.splice(0, PACKET);
    }
    this.sample(now, values);
    if (this.registers[R.INT_SOURCE0] & 0x08 && (this.registers[R.INT_CONFIG] & 0x03) === 0x03 &&
        !(this.registers[R.INT_CONFIG1] & 0x10)) this.pulse(PULSE_NANOS);
  }
  after(address) {
    return address === R.FIFO_DATA ? address : (address + 1) & 0x7f;
  }
  read(address) {
    if (this.clock.nanos < this.readyAt) this.violations.push(`read of ${address.toString(16)} during reset`);
    const config = this.registers[R.INTF_CONFIG0];
    const count = config & 0x40 ? this.fifo.length / PACKET : this.fifo.length;
    switch (address) {
      case R.FIFO_COUNTH: return config & 0x20 ? count >> 8 : count & 0xff;
      case R.FIFO_COUNTL: return config & 0x20 ? count & 0xff : count >> 8;
      case R.FIFO_DATA: return this.fifo.length ? this.fifo.shift() : 0xff;
      case R.WHO_AM_I: return this.whoAmI;
      default: return this.registers[address];
    }
  }
  write(address, value) {
    const now = this.clock.nanos;
    if (now < this.readyAt && address !== R.REG_BANK_SEL && !(address === R.DEVICE_CONFIG && value & 1))
      this.violations.push(`write of ${address.toString(16)} during reset`);
    if (now < this.quietUntil) this.violations.push(`write of ${address.toString(16)} right after power-up`);
    if (address === R.DEVICE_CONFIG && value & 1) return this.reset(), 0;
    if (address === R.SIGNAL_PATH_RESET) {
      if (value & 0x02) this.fifo = [];
      return 0;
    }
    const before = this.on;
    if (address !== R.WHO_AM_I) this.registers[address] = value;
    if (this.on && !before) {
      this.quietUntil = now + 200e3;
      this.scheduleSample();
    }
    return 0;
  }
}
