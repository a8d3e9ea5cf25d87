#include "internal.h"
#include "wire.h"

/* Long enough for the ACK to leave on an undisturbed line. */
#define RESET_LATEST_US 100000u
#define COMMAND_HEAD_BYTES 3u

typedef struct {
    uint8_t status;
    const char *text;
    uint8_t n;
    uint32_t totals[EC_MAX_STREAMS];
} answer;

static void stop_sampling(ec_device *device, answer *ack)
{
    ec_stop(device);
    ack->n = device->n_streams;
    for (uint8_t s = 0; s < device->n_streams; s++)
        ack->totals[s] = device->samplers[s].produced;
}

static void refuse(answer *ack, uint8_t status, const char *text)
{
    ack->status = status;
    ack->text = text;
}

static void set_rate(ec_device *device, const uint8_t *args, answer *ack)
{
    const uint32_t rate_mhz = ec_get_u32(args + 1);
    if (args[0] >= device->n_streams)
        refuse(ack, EC_BAD_ARGUMENT, "no such stream");
    else if (rate_mhz < EC_RATE_MIN_MHZ || rate_mhz > EC_RATE_MAX_MHZ)
        refuse(ack, EC_BAD_ARGUMENT, "rate outside 0.1 to 10000 Hz");
    else if (device->sampling)
        refuse(ack, EC_FAILED, "stop sampling first");
    else if (!device->hal.rate(device->hal.ctx, args[0], rate_mhz))
        refuse(ack, EC_FAILED, "this stream cannot be sampled at that rate");
    else
        ec_set_rate(&device->samplers[args[0]], rate_mhz);
}

static void tare(ec_device *device, const uint8_t *args, answer *ack)
{
    if (args[0] >= device->n_streams)
        refuse(ack, EC_BAD_ARGUMENT, "no such stream");
    else if (!device->hal.tare(device->hal.ctx, args[0]))
        refuse(ack, EC_FAILED, "this stream cannot be tared");
}

#define LED_BYTES 4u
#define LED_RHYTHM_BYTES 5u

static void light(ec_device *device, const uint8_t *args, size_t n)
{
    const bool before = ec_light_is_steady(&device->light);
    if (n < LED_BYTES + LED_RHYTHM_BYTES)
        ec_light_pattern(&device->light, args, args[3], device->now_us);
    else
        ec_light_rhythm(&device->light, args, (uint16_t)ec_get_u16(args + 4), (uint16_t)ec_get_u16(args + 6),
                        args[8], device->now_us);
    device->light.pattern = args[3];
    ec_show_light(device);
    /* Right after switching: the event tells the instant, to the microsecond. */
    const bool after = ec_light_is_steady(&device->light);
    if (before != after)
        ec_send_event(device, after ? EC_LED_ON : EC_LED_OFF, EC_NO_STREAM, ec_update_now(device), 0, "");
}

static size_t argument_bytes(uint8_t op)
{
    switch (op) {
    case EC_OP_RATE: return 5;
    case EC_OP_TARE: return 1;
    case EC_OP_LED: return LED_BYTES;
    default: return 0;
    }
}

static void carry_out(ec_device *device, uint8_t op, const uint8_t *args, size_t n, answer *ack)
{
    switch (op) {
    case EC_OP_HELLO: ec_queue_hello(device); break;
    case EC_OP_START: ec_stop(device); break; /* begins once its ACK is queued */
    case EC_OP_STOP: stop_sampling(device, ack); break;
    case EC_OP_RATE: set_rate(device, args, ack); break;
    case EC_OP_TARE: tare(device, args, ack); break;
    case EC_OP_LED: light(device, args, n); break;
    case EC_OP_RESET:
        device->reset_asked = true;
        device->reset_by_us = device->now_us + RESET_LATEST_US;
        break;
    default: refuse(ack, EC_UNKNOWN_OP, "unknown op"); break;
    }
}

void ec_obey(ec_device *device, const uint8_t *payload, size_t n)
{
    if (n < COMMAND_HEAD_BYTES) {
        device->refused_frames++;
        return;
    }
    answer ack = {EC_OK, "", 0, {0}};
    const uint8_t op = payload[2];
    if (n < COMMAND_HEAD_BYTES + argument_bytes(op))
        refuse(&ack, EC_BAD_ARGUMENT, "too few argument bytes");
    else
        carry_out(device, op, payload + COMMAND_HEAD_BYTES, n - COMMAND_HEAD_BYTES, &ack);
    uint8_t out[2 + 1 + 1 + EC_TEXT_MAX + 1 + 4 * EC_MAX_STREAMS];
    uint8_t *p = ec_put_u16(out, ec_get_u16(payload));
    p = ec_put_u8(p, ack.status);
    p = ec_put_text(p, ack.text, EC_TEXT_MAX);
    p = ec_put_u8(p, ack.n);
    for (uint8_t i = 0; i < ack.n; i++)
        p = ec_put_u32(p, ack.totals[i]);
    ec_queue_answer(device, EC_ACK, out, (size_t)(p - out));
    /* So that no frame of the new run precedes the ACK of its START. */
    if (op == EC_OP_START && ack.status == EC_OK)
        ec_start(device);
}
