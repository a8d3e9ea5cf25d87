// The UART with time: rp2040js sends a byte in no time and raises the receive interrupt for each; the PL011 takes
// ten bit times per byte each way, has 32-byte FIFOs with a threshold, and tells by BUSY when it has finished.
import { FIFO } from 'rp2040js';

const FIFO_BYTES = 32;
const DR = 0x00, FR = 0x18, IFLS = 0x34, IMSC = 0x38, RIS = 0x3c, MIS = 0x40, ICR = 0x44, DMACR = 0x48;
const BUSY = 1 << 3, RXFE = 1 << 4, TXFF = 1 << 5, RXFF = 1 << 6, TXFE = 1 << 7;
const RX = 1 << 4, RX_TIMEOUT = 1 << 6;
const DMA_TX = 1 << 1;
const RX_LEVELS = [4, 8, 16, 24, 28];

/** Replace the registers of an rp2040js UART by ones that take time. `onSent(byte, nanos)`: its stop bit has ended. */
export function paceUart(mcu, uart, onSent) {
  const clock = mcu.clock;
  const plainRead = uart.readUint32.bind(uart);
  const plainWrite = uart.writeUint32.bind(uart);
  const tx = new FIFO(FIFO_BYTES);
  const rx = new FIFO(FIFO_BYTES);
  const line = []; // bytes on their way to the receiver
  const state = { shifting: null, ifls: 2, dmacr: 0, mask: 0, raw: 0, overruns: 0, lost: 0 };
  const bitNanos = () => 1e9 / uart.baudRate;

  const irq = () => mcu.setInterrupt(uart.irq, !!(state.raw & state.mask));
  const request = () => {
    if (state.dmacr & DMA_TX && !tx.full) mcu.dma.setDREQ(uart.dreq.tx);
    else mcu.dma.clearDREQ(uart.dreq.tx);
  };
  const sent = clock.createAlarm(() => {
    const byte = state.shifting;
    state.shifting = null;
    shift();
    onSent(byte, clock.nanos);
  });
  const shift = () => {
    if (state.shifting === null && !tx.empty) {
      state.shifting = tx.pull();
      sent.schedule(10 * bitNanos());
    }
    request();
  };
  const timeout = clock.createAlarm(() => {
    if (!rx.empty) {
      state.raw |= RX_TIMEOUT;
      irq();
    }
  });
  const received = clock.createAlarm(() => {
    const { byte, taken } = line.shift();
    if (rx.full) state.overruns++;
    else rx.push(byte);
    if (rx.itemCount >= RX_LEVELS[(state.ifls >> 3) & 7]) state.raw |= RX;
    timeout.schedule(32 * bitNanos());
    irq();
    taken?.(clock.nanos);
    if (line.length) received.schedule(10 * bitNanos());
  });

  uart.readUint32 = (offset) => {
    switch (offset) {
      case DR: {
        const byte = rx.pull();
        if (rx.itemCount < RX_LEVELS[(state.ifls >> 3) & 7]) state.raw &= ~RX;
        if (rx.empty) state.raw &= ~RX_TIMEOUT;
        irq();
        return byte;
      }
      case FR:
        return (
          (state.shifting !== null || !tx.empty ? BUSY : 0) | (rx.empty ? RXFE : 0) | (rx.full ? RXFF : 0) |
          (tx.full ? TXFF : 0) | (tx.empty ? TXFE : 0)
        );
      case IFLS: return state.ifls;
      case IMSC: return state.mask;
      case RIS: return state.raw;
      case MIS: return state.raw & state.mask;
      case DMACR: return state.dmacr;
      default: return plainRead(offset);
    }
  };
  uart.writeUint32 = (offset, value) => {
    switch (offset) {
      case DR:
        if (tx.full) state.lost++;
        else tx.push(value & 0xff);
        return shift();
      case IFLS: state.ifls = value & 0x3f; return;
      case IMSC: state.mask = value & 0x7ff; return irq();
      case ICR: state.raw &= ~uart.rawWriteValue; return irq();
      case DMACR: state.dmacr = value; return request();
      default: return plainWrite(offset, value);
    }
  };
  return {
    state,
    /** A byte begins to arrive now, or after those on their way; `taken(nanos)` when its stop bit has ended. */
    feed(byte, taken) {
      line.push({ byte, taken });
      if (line.length === 1) received.schedule(10 * bitNanos());
    },
  };
}
