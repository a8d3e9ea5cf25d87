#include "internal.h"
#include "wire.h"

static size_t text_bytes(const char *text)
{
    const size_t n = strlen(text);
    return 1 + (n < EC_TEXT_MAX ? n : EC_TEXT_MAX);
}

static size_t measure_hello(const ec_device *device, uint8_t part)
{
    size_t n = 6 + text_bytes(EC_FIRMWARE) + text_bytes(device->serial_number);
    if (part >= device->n_streams)
        return n;
    const ec_stream *stream = &device->streams[part];
    n += 11 + text_bytes(stream->name) + 1;
    for (uint8_t c = 0; c < stream->n_channels; c++)
        n += text_bytes(stream->channels[c].name) + text_bytes(stream->channels[c].unit) + 8;
    return n;
}

size_t ec_write_hello(const ec_device *device, uint8_t part, uint8_t *p)
{
    const size_t n = measure_hello(device, part);
    if (p == NULL)
        return n;
    p = ec_put_u32(p, device->boot_id);
    p = ec_put_u8(p, part);
    p = ec_put_u8(p, device->n_streams);
    p = ec_put_text(p, EC_FIRMWARE, EC_TEXT_MAX);
    p = ec_put_text(p, device->serial_number, EC_TEXT_MAX);
    if (part >= device->n_streams)
        return n;
    const ec_stream *stream = &device->streams[part];
    p = ec_put_u8(p, part);
    p = ec_put_u8(p, stream->kind);
    p = ec_put_u8(p, stream->dtype);
    p = ec_put_u32(p, device->samplers[part].rate_mhz);
    p = ec_put_u32(p, (uint32_t)stream->lag_us);
    p = ec_put_text(p, stream->name, EC_TEXT_MAX);
    p = ec_put_u8(p, stream->n_channels);
    for (uint8_t c = 0; c < stream->n_channels; c++) {
        p = ec_put_text(p, stream->channels[c].name, EC_TEXT_MAX);
        p = ec_put_text(p, stream->channels[c].unit, EC_TEXT_MAX);
        p = ec_put_f32(p, stream->channels[c].scale);
        p = ec_put_f32(p, stream->channels[c].full_scale);
    }
    return n;
}

void ec_queue_hello(ec_device *device)
{
    device->hello_part = 0;
    ec_tell_again_soon(device);
    device->hello_parts = device->n_streams > 0 ? device->n_streams : 1;
}
