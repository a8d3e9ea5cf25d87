// A host on the USB port: rp2040js' own CDC host sets the device up, then this one talks to it. A packet to the
// device waits until the device has a buffer for it (rp2040js would hand over empty ones for ever).
import { USBCDC } from 'rp2040js';

const PACKET = 64;
const READ_NANOS = 10e3;
const SET_CONTROL_LINE_STATE = 0x22;

export class UsbHost {
  /** `received(packet, nanos)`: a bulk packet has come. */
  constructor(mcu, received) {
    this.usb = mcu.usbCtrl;
    this.clock = mcu.clock;
    this.received = received;
    this.open = false;
    this.outbox = [];
    this.buffer = 0; // free bytes of the device's armed OUT buffer
    this.control = null;
    const cdc = new USBCDC(this.usb);
    this.cdc = cdc;
    this.usb.onEndpointRead = (endpoint, size) => {
      if (endpoint === cdc.outEndpoint) {
        this.buffer = size;
        this.deliver();
      } else if (endpoint === 0 && this.control?.data) {
        this.usb.endpointReadDone(0, this.control.data);
        this.control.data = null;
      }
    };
    cdc.onDeviceConnected = () => {
      this.open = true;
      this.usb.onEndpointWrite = (endpoint, packet) => this.take(endpoint, packet);
    };
  }
  take(endpoint, packet) {
    if (endpoint === this.cdc.inEndpoint) return this.received(packet, this.clock.nanos);
    if (endpoint !== 0 || !this.control) return;
    this.control.answer.push(...packet);
    const { answer, wanted, done } = this.control;
    if (packet.length < PACKET || answer.length >= wanted) {
      this.control = null;
      done(answer);
    }
  }
  /** One byte for the device; `taken(nanos)` when it has it. */
  feed(byte, taken) {
    this.outbox.push({ byte, taken });
    this.deliver();
  }
  deliver() {
    if (!this.buffer || !this.outbox.length || !this.open) return;
    const batch = this.outbox.splice(0, Math.min(this.buffer, PACKET));
    this.buffer = 0;
    this.usb.endpointReadDone(this.cdc.outEndpoint, Uint8Array.from(batch, ({ byte }) => byte));
    for (const { taken } of batch) taken?.(this.clock.nanos + READ_NANOS);
  }
  /** A control request: [type, request, value, index, length] and the bytes that go with it; its answer. */
  request([type, request, value, index, length], data = null) {
    return new Promise((done) => {
      this.control = { answer: [], wanted: type & 0x80 ? length : 0, data: data && Uint8Array.from(data), done };
      this.usb.sendSetupPacket(
        Uint8Array.of(type, request, value & 0xff, value >> 8, index & 0xff, index >> 8, length & 0xff, length >> 8),
      );
    });
  }
  /** A program opens or closes the port. */
  setOpen(open) {
    return this.request([0x21, SET_CONTROL_LINE_STATE, open ? 3 : 0, 0, 0]);
  }
}
