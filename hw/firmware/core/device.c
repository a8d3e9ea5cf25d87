#include "device.h"

#include "frame.h"
#include "internal.h"
#include "wire.h"

#define LOG_EVERY_US 1000000u
/* A release that is lost on the line would make a hold of a press. */
#define BUTTON_AGAIN 2u
#define BUTTON_AGAIN_US 20000u
#define BUTTON_LAST_US 80000u
/* A host that is there pings several times a second. */
#define HOST_SILENT_US 3000000u
#define LAPSED_OFF_MS 1000u
#define LAPSED_FLASHES 4u
#define PONG_BYTES 12u
#define PING_BYTES 4u

uint64_t ec_update_now(ec_device *device)
{
    device->now_us += (uint32_t)(device->hal.micros(device->hal.ctx) - (uint32_t)device->now_us);
    return device->now_us;
}

const char *ec_init(ec_device *device, const ec_hal *hal, const ec_stream *streams, uint8_t n_streams,
                    const char *serial_number)
{
    memset(device, 0, sizeof *device);
    device->hal = *hal;
    device->streams = streams;
    device->n_streams = n_streams;
    device->serial_number = serial_number;
    if (n_streams > EC_MAX_STREAMS)
        return "more than 8 streams";
    device->now_us = hal->micros(hal->ctx);
    device->boot_id = hal->boot_id(hal->ctx);
    for (uint8_t s = 0; s < n_streams; s++) {
        const ec_stream *stream = &streams[s];
        if (stream->n_channels == 0 || stream->n_channels > EC_MAX_CHANNELS)
            return "a stream needs 1 to 64 channels";
        if (ec_value_bytes(stream->dtype) == 0)
            return "a stream has an unknown dtype";
        if (stream->rate_mhz < EC_RATE_MIN_MHZ || stream->rate_mhz > EC_RATE_MAX_MHZ)
            return "a stream's rate is outside 0.1 to 10000 Hz";
        if (ec_write_hello(device, s, NULL) > EC_PAYLOAD_MAX)
            return "a stream's descriptor does not fit one HELLO frame; shorten its names";
        ec_init_sampler(device, s);
    }
    ec_queue_hello(device);
    ec_begin_looks(device);
    device->light.change_us = UINT64_MAX;
    return NULL;
}

void ec_queue_answer(ec_device *device, uint8_t type, const uint8_t *payload, size_t n)
{
    if (ec_queue_fits(&device->queue, n, 0))
        ec_queue_push(&device->queue, type, payload, n);
    else
        device->lost_frames++;
}

void ec_send_event(ec_device *device, uint8_t code, uint8_t stream, uint64_t t_us, uint32_t arg,
                   const char *text)
{
    uint8_t payload[10 + 1 + EC_TEXT_MAX];
    uint8_t *p = ec_put_u8(payload, code);
    p = ec_put_u8(p, stream);
    p = ec_put_u32(p, (uint32_t)t_us);
    p = ec_put_u32(p, arg);
    p = ec_put_text(p, text, EC_TEXT_MAX);
    ec_queue_answer(device, EC_EVENT, payload, (size_t)(p - payload));
}

void ec_send_log(ec_device *device, uint8_t level, const char *text)
{
    uint8_t payload[5 + 1 + EC_LOG_TEXT_MAX];
    uint8_t *p = ec_put_u8(payload, level);
    p = ec_put_u32(p, (uint32_t)device->now_us);
    p = ec_put_text(p, text, EC_LOG_TEXT_MAX);
    ec_queue_answer(device, EC_LOG, payload, (size_t)(p - payload));
}

void ec_transmitted(ec_device *device, uint32_t t_us)
{
    device->tx_done_us = t_us;
    device->sending = false;
}

void ec_button_raw(ec_device *device, bool down)
{
    ec_button_edge(&device->button, down, ec_update_now(device));
}

static void receive_frame(ec_device *device, uint32_t t_us)
{
    ec_frame frame;
    if (!ec_frame_open(device->rx, device->rx_bytes, &frame)) {
        device->refused_frames++;
        return;
    }
    device->heard_us = ec_update_now(device);
    if (frame.type == EC_PING && frame.bytes == PING_BYTES) {
        uint8_t payload[PONG_BYTES];
        uint8_t *p = ec_put_u32(payload, ec_get_u32(frame.payload));
        p = ec_put_u32(p, t_us);
        ec_put_u32(p, 0); /* t3, stamped when it is handed to the transmitter */
        ec_queue_answer(device, EC_PONG, payload, PONG_BYTES);
    } else if (frame.type == EC_COMMAND) {
        ec_obey(device, frame.payload, frame.bytes);
    } else {
        device->refused_frames++;
    }
}

void ec_receive(ec_device *device, uint8_t byte, uint32_t t_us)
{
    if (byte != 0) {
        if (device->rx_bytes < sizeof device->rx)
            device->rx[device->rx_bytes++] = byte;
        else
            device->rx_too_long = true;
        return;
    }
    if (device->rx_too_long)
        device->refused_frames++;
    else if (device->rx_bytes > 0) /* delimiters in a row are idle line */
        receive_frame(device, t_us);
    device->rx_bytes = 0;
    device->rx_too_long = false;
}

static void feed_hello(ec_device *device)
{
    while (device->hello_part < device->hello_parts) {
        const size_t n = ec_write_hello(device, device->hello_part, NULL);
        if (!ec_queue_fits(&device->queue, n, 0))
            return;
        uint8_t payload[EC_PAYLOAD_MAX];
        ec_write_hello(device, device->hello_part, payload);
        ec_queue_push(&device->queue, EC_HELLO, payload, n);
        device->hello_part++;
    }
}

static uint8_t *put_count(uint8_t *p, uint32_t n)
{
    uint8_t digits[10];
    uint32_t k = 0;
    do {
        digits[k++] = (uint8_t)('0' + n % 10);
        n /= 10;
    } while (n != 0);
    while (k > 0)
        *p++ = digits[--k];
    return p;
}

static void log_count(ec_device *device, uint32_t *count, const char *what)
{
    char text[64];
    if (*count == 0 || device->now_us < device->log_after_us)
        return;
    uint8_t *end = put_count((uint8_t *)text, *count);
    const size_t n = strlen(what);
    memcpy(end, what, n + 1);
    *count = 0;
    device->log_after_us = device->now_us + LOG_EVERY_US;
    ec_send_log(device, EC_WARNING, text);
}

static void feed_transmitter(ec_device *device)
{
    if (device->sending)
        return;
    uint8_t type = 0;
    const int n = ec_queue_pop(&device->queue, &type, device->body + EC_HEAD_BYTES);
    if (n < 0)
        return;
    if (type == EC_PONG)
        ec_put_u32(device->body + EC_HEAD_BYTES + 8, device->hal.micros(device->hal.ctx));
    /* The first frame ends whatever a reset may have cut short on the line. */
    const size_t at = device->has_prev ? 0 : 1;
    device->wire[0] = 0;
    const size_t bytes = ec_frame_seal(device->body, (size_t)n, type, device->seq, device->has_prev,
                                       device->tx_done_us, device->wire + at);
    device->seq++;
    device->has_prev = true;
    device->sending = true;
    device->hal.transmit(device->hal.ctx, device->wire, at + bytes);
}

static void tell_button(ec_device *device)
{
    if (ec_button_settle(&device->button, device->now_us, &device->button_edge_us)) {
        device->button_again = BUTTON_AGAIN;
        device->button_again_us = device->now_us + BUTTON_AGAIN_US;
    } else if (device->button_again > 0 && device->now_us >= device->button_again_us) {
        device->button_again--;
        device->button_again_us = device->now_us + BUTTON_LAST_US;
    } else {
        return;
    }
    ec_send_event(device, device->button.down ? EC_BUTTON_DOWN : EC_BUTTON_UP, EC_NO_STREAM, device->button_edge_us,
                  0, "");
}

/* When the light is no longer to be believed. */
static uint64_t lapse_us(const ec_device *device)
{
    return ec_light_is_lit(&device->light) ? device->heard_us + HOST_SILENT_US : UINT64_MAX;
}

void ec_show_light(ec_device *device)
{
    static const uint8_t vermilion[3] = {213, 94, 0};
    const bool alone = device->now_us >= lapse_us(device);
    ec_light *light = alone ? &device->lapsed : &device->light;
    if (alone != device->alone) {
        /* Whichever begins knows what is to be seen now. */
        memcpy(light->shown, alone ? device->light.shown : device->lapsed.shown, sizeof light->shown);
        if (alone)
            ec_light_rhythm(light, vermilion, EC_FLASH_MS, LAPSED_OFF_MS, LAPSED_FLASHES, device->now_us);
        light->change_us = device->now_us;
        device->alone = alone;
    }
    if (ec_light_update(light, device->now_us))
        device->hal.led(device->hal.ctx, light->shown[0], light->shown[1], light->shown[2]);
}

void ec_poll(ec_device *device)
{
    const uint64_t now = ec_update_now(device);
    if (device->sampling)
        ec_take_due(device);
    else
        ec_look(device);
    tell_button(device);
    ec_show_light(device);
    feed_hello(device);
    log_count(device, &device->refused_frames, " frames from the host refused");
    log_count(device, &device->lost_frames, " answers or events lost, queue full");
    feed_transmitter(device);
    const bool drained = !device->sending && device->queue.used == 0;
    if (device->reset_asked && (drained || now >= device->reset_by_us))
        device->hal.reset(device->hal.ctx);
}

uint64_t ec_next_row_us(const ec_device *device)
{
    uint64_t next = UINT64_MAX;
    for (uint8_t s = 0; device->sampling && s < device->n_streams; s++) {
        const ec_sampler *sampler = &device->samplers[s];
        if (device->streams[s].given)
            continue;
        const uint64_t due = device->start_us + sampler->ticks * UINT64_C(1000000000) / sampler->rate_mhz;
        next = due < next ? due : next;
    }
    return next;
}

uint64_t ec_next_wake_us(const ec_device *device)
{
    uint64_t next = device->sampling ? UINT64_MAX : device->look_us;
    for (uint8_t s = 0; device->sampling && s < device->n_streams; s++) {
        const uint64_t full = ec_batch_full_us(device, s);
        next = full < next ? full : next;
    }
    const uint64_t light_us = device->alone ? device->lapsed.change_us : device->light.change_us;
    if (light_us < next)
        next = light_us;
    if (!device->alone && lapse_us(device) < next)
        next = lapse_us(device);
    if (device->button.unsettled) {
        const uint64_t settled = device->button.last_edge_us + EC_BUTTON_STABLE_US;
        next = settled < next ? settled : next;
    }
    if (device->button_again > 0 && device->button_again_us < next)
        next = device->button_again_us;
    if (device->reset_asked && device->reset_by_us < next)
        next = device->reset_by_us;
    if ((device->refused_frames || device->lost_frames) && device->log_after_us < next)
        next = device->log_after_us;
    if (!device->sending && (device->queue.used > 0 || device->hello_part < device->hello_parts))
        next = device->now_us;
    return next;
}
