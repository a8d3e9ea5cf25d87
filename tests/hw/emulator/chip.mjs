// An RP2040 with an edgecap board around it, in emulated time. Where rp2040js 1.4.1 departs from the chip it is put
// right here, at the registers: UART timing (uart.mjs), alarms that come early, the ADC's round robin, the ring
// oscillator's random bit, the flash chip's unique number, the mask of the I2C interrupts and what
// switching it off does, a wake-up by an interrupt that was pending before WFI, and a reset by the watchdog.
import { RP2040 } from 'rp2040js';
import { Icm42688 } from './icm42688.mjs';
import { Lsm6dsv16x } from './lsm6dsv16x.mjs';
import { Mlx90393 } from './mlx90393.mjs';
import { paceUart } from './uart.mjs';
import { UsbHost } from './usbhost.mjs';

export const PINS = { sda: 4, scl: 5, muxS0: 6, muxEnable: 10, button: 11, red: 12, green: 13, blue: 14, imuCs: 17, imuInt: 20 };
const CYCLE_NANOS = 8;
const BOOT2_BYTES = 256, BOOT2_AT = 0x20041f00;
const SCRATCH_REGISTERS = 8;
const ROSC = 0x40060, SSI = 0x18000, IO_QSPI = 0x40018, WATCHDOG = 0x40058, TIMER = 0x40054;
const TIMER_ALARM0 = 0x10;
const I2C_INTR_MASK = 0x30, I2C_ENABLE = 0x6c;
const BIT_NANOS_I2C = 2500, BYTE_NANOS_SPI = 8 * 128;
const MUX_SETTLE_NANOS = 3e3, MUX_DIRECT = 4;

/** A seeded generator of numbers in [0, 1): mulberry32. */
export function seeded(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function bootCrc(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte << 24;
    for (let i = 0; i < 8; i++) crc = (crc << 1) ^ (crc & 0x80000000 ? 0x04c11db7 : 0);
  }
  return crc >>> 0;
}

class Registers {
  constructor(read, write = () => {}) {
    Object.assign(this, { read, write });
  }
  readUint32(offset) {
    return this.read(offset);
  }
  writeUint32Atomic(offset, value, kind) {
    const old = kind ? this.read(offset) : 0;
    this.write(offset, [value, old ^ value, old | value, old & ~value][kind] >>> 0);
  }
}

export class Chip {
  /** `world`: what outlives a reset: flash, random, log functions, sensor settings. */
  constructor(world) {
    this.world = world;
    this.halted = false;
    const mcu = (this.mcu = new RP2040());
    mcu.logger = { debug() {}, info() {}, warn: world.warn, error: world.warn };
    mcu.flash.set(world.flash);
    this.clock = mcu.clock;
    this.uart = paceUart(mcu, mcu.uart[0], (byte, nanos) => world.sent(byte, nanos));
    if (world.usb) {
      this.usb = new UsbHost(mcu, (packet, nanos) => {
        world.packet(packet.length);
        packet.forEach((byte) => world.sent(byte, nanos));
      });
    }
    this.line = world.usb ? this.usb : this.uart;
    this.correctAlarms();
    this.correctAdc();
    this.addRandomBit();
    this.addFlashChip();
    this.watchLight();
    this.addImu();
    this.addMagnets();
    mcu.gpio[PINS.button].setInputValue(!world.button);
    const watchdog = mcu.peripherals[WATCHDOG];
    watchdog.onWatchdogTrigger = () => {
      this.halted = true;
      watchdog.alarm.enable = false; // it would come again and again at the same instant
    };
    if (world.scratch) watchdog.scratchData.set(world.scratch);
    this.boot();
  }
  /** As the boot ROM: check the second stage, copy it to the end of SRAM, run it. */
  boot() {
    const { flash } = this.world;
    const stage = flash.subarray(0, BOOT2_BYTES - 4);
    const crc = new DataView(flash.buffer, flash.byteOffset).getUint32(BOOT2_BYTES - 4, true);
    if (bootCrc(stage) !== crc) throw new Error('the second boot stage has a wrong CRC');
    this.mcu.sram.set(flash.subarray(0, BOOT2_BYTES), BOOT2_AT - 0x20000000);
    const core = this.mcu.core;
    core.registers[13] = BOOT2_AT;
    core.registers[14] = 0;
    core.PC = BOOT2_AT;
  }
  run(untilNanos) {
    const { clock } = this;
    const { core } = this.mcu;
    while (!this.halted && clock.nanos < untilNanos) {
      if (!core.waiting) {
        clock.tick(core.executeInstruction() * CYCLE_NANOS);
      } else if (core.pendingInterrupts & core.enabledInterrupts && core.checkForInterrupts()) {
        core.waiting = false;
      } else {
        const next = clock.nextAlarm ? clock.nanosToNextAlarm : Infinity;
        clock.tick(Math.min(next, untilNanos - clock.nanos));
      }
    }
  }
  scratch() {
    return this.mcu.peripherals[WATCHDOG].scratchData.slice(0, SCRATCH_REGISTERS);
  }
  /** An alarm comes when the counter reaches it, not up to a microsecond before; one for now has been missed. */
  correctAlarms() {
    const timer = this.mcu.peripherals[TIMER];
    const plainWrite = timer.writeUint32.bind(timer);
    timer.writeUint32 = (offset, value) => {
      plainWrite(offset, value);
      const n = (offset - TIMER_ALARM0) / 4;
      if (n < 0 || n > 3) return;
      const now = Math.floor(this.clock.nanos / 1000);
      const due = now + (((value - now - 1) >>> 0) + 1);
      timer.alarms[n].clockAlarm.schedule(due * 1000 - this.clock.nanos);
    };
  }
  correctAdc() {
    const { mcu, world, clock } = this;
    const adc = mcu.adc;
    Object.defineProperty(adc, 'activeChannel', {
      get: () => (adc.cs >> 12) & 7,
      set: (channel) => (adc.cs = (adc.cs & ~(7 << 12)) | ((channel & 7) << 12)),
    });
    let position = 0, before = 0, switched = -Infinity;
    const follow = () => {
      const now = this.muxPosition();
      if (now === position) return;
      if (clock.nanos - switched > MUX_SETTLE_NANOS) before = position;
      [position, switched] = [now, clock.nanos];
    };
    for (let i = 0; i < 4; i++) mcu.gpio[PINS.muxS0 + i].addListener(follow);
    adc.onADCRead = (channel) => {
      adc.currentChannel = channel;
      // Until the input has settled it still has the voltage of the source before.
      const settled = clock.nanos - switched >= MUX_SETTLE_NANOS;
      const muxed = world.muxed && channel === 0;
      const source = muxed ? MUX_DIRECT + (settled ? position : before) : channel;
      const selected = muxed ? MUX_DIRECT + position : channel;
      adc.channelValues[channel] = world.analog(source, selected, clock.nanos);
      adc.sampleAlarm.schedule(adc.sampleTime * 1000);
    };
  }
  muxPosition() {
    let position = 0;
    for (let i = 0; i < 4; i++) if (this.mcu.gpio[PINS.muxS0 + i].outputValue) position |= 1 << i;
    return position;
  }
  addRandomBit() {
    const { world } = this;
    this.mcu.peripherals[ROSC] = new Registers((offset) => (offset === 0x1c && world.random() < 0.5 ? 1 : 0));
  }
  /** The SSI as far as command 4Bh goes; other transfers answer nothing. */
  addFlashChip() {
    const { world, mcu } = this;
    const kept = new Map();
    let selected = false, sent = [], answers = [];
    mcu.peripherals[IO_QSPI] = new Registers(
      (offset) => kept.get(offset) ?? 0,
      (offset, value) => {
        kept.set(offset, value);
        if (offset !== 0x0c) return;
        selected = ((value >> 8) & 3) === 2;
        sent = [];
      },
    );
    mcu.peripherals[SSI] = new Registers(
      (offset) => {
        if (offset === 0x24) return answers.length;
        if (offset === 0x28) return 0x06 | (answers.length ? 8 : 0);
        if (offset === 0x60) return answers.shift() ?? 0;
        return kept.get(0x1000 + offset) ?? 0;
      },
      (offset, value) => {
        kept.set(0x1000 + offset, value);
        if (offset !== 0x60 || !selected) return;
        sent.push(value & 0xff);
        answers.push(sent[0] === 0x4b && sent.length > 5 ? world.flashId[sent.length - 6] : 0);
      },
    );
  }
  /** Levels of the light: 0 to 255 each, as driven now. */
  light() {
    return [PINS.red, PINS.green, PINS.blue].map((pin) => {
      const gpio = this.mcu.gpio[pin];
      if (gpio.functionSelect !== 4) return gpio.value === 1 ? 255 : 0;
      const slice = this.mcu.pwm.channels[(pin >> 1) & 7];
      return slice.csr & 1 ? (slice.cc >>> (pin & 1 ? 16 : 0)) & 0xffff : 0;
    });
  }
  watchLight() {
    const gpio = this.mcu.gpio[PINS.red];
    gpio.addListener((state, before) => {
      if (gpio.functionSelect === 5 && before <= 1) this.world.redEdge(state === 1, this.clock.nanos);
    });
  }
  addImu() {
    const { mcu, world, clock } = this;
    const [Kind, id] = world.imu.lsm6dsv16x ? [Lsm6dsv16x, 0x70] : [Icm42688, 0x47];
    const { whoAmI = id, present = true, ppm = 0, frozen = false } = world.imu;
    const imu = (this.imu = new Kind(clock, {
      int1: (level) => world.imu.int1 !== false && mcu.gpio[PINS.imuInt].setInputValue(level),
      sample: world.imuSample,
      random: world.random,
      ppm,
    }));
    Object.assign(imu, { whoAmI, present, frozen });
    mcu.gpio[PINS.imuCs].addListener((state) => imu.select(state === 0));
    const spi = mcu.spi[0];
    let answer = 0;
    const done = clock.createAlarm(() => spi.completeTransmit(answer));
    spi.onTransmit = (byte) => {
      answer = imu.exchange(byte);
      done.schedule(BYTE_NANOS_SPI);
    };
  }
  addMagnets() {
    const { mcu, world, clock } = this;
    this.magnets = new Map(
      world.magnets.map(({ address, present = true }) => {
        const sensor = new Mlx90393(clock, {
          random: world.random,
          sample: (t_ns, values) => world.magnetSample(address, t_ns, values),
        });
        sensor.present = present;
        return [address, sensor];
      }),
    );
    const i2c = mcu.i2c[0];
    const plainWrite = i2c.writeUint32.bind(i2c);
    i2c.writeUint32 = (offset, value) => {
      if (offset === I2C_INTR_MASK) {
        i2c.intEnable = value & 0x1fff;
        return i2c.checkInterrupts();
      }
      // Switched off, it gives up whatever it was doing.
      if (offset === I2C_ENABLE && !(value & 1)) {
        alarm.cancel();
        i2c.txFIFO.reset();
        i2c.rxFIFO.reset();
        Object.assign(i2c, { state: 0, busy: false, stop: false, pendingRestart: false });
      }
      return plainWrite(offset, value);
    };
    let target = null, step = () => {};
    const alarm = clock.createAlarm(() => step());
    // A stuck line: nothing ever completes.
    const after = (bits, then) => {
      if (world.i2cStuck) return;
      step = then;
      alarm.schedule(bits * BIT_NANOS_I2C);
    };
    i2c.onStart = () => after(1, () => i2c.completeStart());
    i2c.onConnect = (address) => {
      const found = this.magnets.get(address);
      target = found?.present ? found : null;
      target?.begin();
      after(9, () => i2c.completeConnect(target !== null));
    };
    i2c.onWriteByte = (byte) => {
      target.write(byte);
      after(9, () => i2c.completeWrite(true));
    };
    i2c.onReadByte = () => {
      const byte = target.read();
      after(9, () => i2c.completeRead(byte));
    };
    i2c.onStop = () => after(1, () => i2c.completeStop());
    // By hand, as outputs that only pull down: pulses of the clock, and a stop (data rises while the clock is high).
    const low = new Set();
    const follow = (pin, rises) =>
      mcu.gpio[pin].addListener((state) => {
        if (state === 0) low.add(pin);
        else if (low.delete(pin)) rises();
      });
    follow(PINS.scl, () => world.i2cClocks--);
    follow(PINS.sda, () => {
      if (world.i2cClocks <= 0 && !low.has(PINS.scl)) world.i2cStuck = false;
    });
  }
}
