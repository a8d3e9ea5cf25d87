// Runs an image on an emulated board, in step with this machine's clock or behind it: node board.mjs OPTIONS.json FD
//
// FD is the open master of a pty, which becomes the board's UART. Commands come as JSON lines on stdin, each is
// answered by one on stdout. Emulated time never runs ahead of the clock, and a byte from the host is fed no earlier
// than it came, so that whatever the daemon concludes about time is possible.
import fs from 'node:fs';
import { Chip, PINS, seeded } from './chip.mjs';

const LINE = Number(process.argv[3]);
const SLICE_NANOS = 500e3;
const BUDGET_MS = 20;
// A machine that cannot keep up lets the board stand still rather than fall behind for ever.
const BEHIND_NANOS = 100e6;

const options = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const random = seeded(options.seed);
const samples = { analog: [], imu: [], magnet: [], red: [], sent: [], received: [], packets: [] };
let source = () => 0;
let epoch = 0; // emulated nanoseconds of earlier boots
let chip = null;
const counters = { resets: 0, slips: 0, warnings: [] };
let output = [];

const world = {
  flash: fs.readFileSync(options.image),
  flashId: options.flashId,
  muxed: options.muxed,
  usb: options.usb,
  random,
  button: false,
  i2cStuck: false,
  i2cClocks: Infinity,
  imu: options.imu ?? { present: false },
  magnets: options.magnets ?? [],
  warn: (name, text) => {
    if (counters.warnings.length < 100) counters.warnings.push(`${name}: ${text}`);
  },
  analog: (position, selected, nanos) => {
    const value = source(position);
    if (options.record) samples.analog.push([counters.resets, nanos, selected, value, position === selected ? 1 : 0]);
    return value;
  },
  imuSample: (nanos, values) => options.record && samples.imu.push([counters.resets, nanos, ...values]),
  magnetSample: (address, nanos, values) =>
    options.record && samples.magnet.push([counters.resets, nanos, address, ...values]),
  packet: (length) => options.record && samples.packets.push(length),
  redEdge: (on, nanos) => samples.red.push([counters.resets, nanos, on ? 1 : 0]),
  sent: (byte, nanos) => {
    output.push(byte);
    if (byte === 0 && options.record) samples.sent.push([counters.resets, nanos]);
  },
};

function boot() {
  world.scratch = chip?.scratch();
  chip = new Chip(world);
}

const commands = {
  analog: ({ values }) => ((source = (position) => values[position] ?? 0), {}),
  noise: () => ((source = () => Math.floor(random() * 4096)), {}),
  // Edges of the contact: microseconds from now, and whether it is closed then.
  button: ({ edges }) => {
    for (const [us, down] of edges) {
      chip.clock.createAlarm(() => {
        world.button = down;
        chip.mcu.gpio[PINS.button].setInputValue(!down);
      }).schedule(us * 1000);
    }
    return { nanos: chip.clock.nanos };
  },
  light: () => ({ levels: chip.light() }),
  imu: (change) => (Object.assign(world.imu, change), Object.assign(chip.imu, change), {}),
  magnet: ({ address, present = true }) => {
    const magnet = chip.magnets.get(address);
    if (present) magnet.powerUp();
    magnet.present = present;
    return {};
  },
  // A line held low: for ever, or until the sensor has seen so many clock pulses and then a stop.
  i2c: ({ stuck, clocks = Infinity }) => {
    Object.assign(world, { i2cStuck: stuck, i2cClocks: clocks });
    return {};
  },
  // What a program does that has run into itself: interrupts off, and in a circle.
  hang: () => {
    chip.mcu.sram.set([0xfe, 0xe7], 0x41000); // b .
    chip.mcu.core.PM = true;
    chip.mcu.core.waiting = false;
    chip.mcu.core.PC = 0x20041000;
    return {};
  },
  state: () => ({
    ...counters,
    nanos: chip.clock.nanos,
    cycles: chip.mcu.core.cycles,
    waiting: chip.mcu.core.waiting,
    baud: chip.mcu.uart[0].baudRate,
    uart: { overruns: chip.uart.state.overruns, lost: chip.uart.state.lost },
    violations: [...chip.imu.violations, ...[...chip.magnets.values()].flatMap((m) => m.violations)],
  }),
  samples: () => samples,
  control: async ({ setup, data }) => ({ answer: await chip.usb.request(setup, data) }),
  open: async ({ open }) => ({ answer: await chip.usb.setOpen(open) }),
};

let pending = '';
async function obey(line) {
  const { name, ...rest } = JSON.parse(line);
  let answer;
  try {
    answer = await commands[name](rest);
  } catch (error) {
    answer = { error: String(error.stack) };
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
}

process.stdin.on('data', (data) => {
  const lines = (pending + data).split('\n');
  pending = lines.pop();
  for (const line of lines) obey(line);
});
process.stdin.on('end', () => process.exit(0));

const inbox = []; // [nanoseconds of this machine's clock, byte]
const buffer = Buffer.alloc(4096);
const began = process.hrtime.bigint();
let standstill = 0;
const wallNanos = () => Number(process.hrtime.bigint() - began) - standstill;

function readLine() {
  try {
    const n = fs.readSync(LINE, buffer);
    const nanos = wallNanos();
    for (let i = 0; i < n; i++) inbox.push([nanos, buffer[i]]);
  } catch (error) {
    if (error.code !== 'EAGAIN' && error.code !== 'EIO') throw error;
  }
}

function writeLine() {
  if (!output.length) return;
  const bytes = Buffer.from(output);
  try {
    output = output.slice(fs.writeSync(LINE, bytes));
  } catch (error) {
    if (error.code !== 'EAGAIN') throw error;
    if (output.length > 65536) output = []; // nobody listens, as on a wire
  }
}

function turn() {
  const until = Date.now() + BUDGET_MS;
  readLine();
  while (epoch + chip.clock.nanos < wallNanos() && Date.now() < until) {
    const now = epoch + chip.clock.nanos;
    while (inbox.length && inbox[0][0] <= now) {
      const byte = inbox.shift()[1];
      chip.line.feed(byte, byte === 0 && options.record
        ? (nanos) => samples.received.push([counters.resets, nanos]) : undefined);
    }
    const next = inbox.length ? inbox[0][0] : Infinity;
    chip.run(Math.min(now + SLICE_NANOS, wallNanos(), next) - epoch);
    if (chip.halted) {
      epoch += chip.clock.nanos;
      counters.resets++;
      boot();
    }
    writeLine();
    readLine();
  }
  writeLine();
  const behind = wallNanos() - epoch - chip.clock.nanos;
  if (behind > BEHIND_NANOS) {
    standstill += behind;
    counters.slips++;
  }
  // A whole turn leaves nothing to do for the rest of a millisecond.
  if (Date.now() < until) setTimeout(turn, 1);
  else setImmediate(turn);
}

boot();
process.stdout.write(JSON.stringify({ ready: true }) + '\n');
turn();
