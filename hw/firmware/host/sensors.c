#include "sensors.h"

#include "../core/wire.h"
#include "model.h"

static int32_t read_int(const uint8_t *p, uint8_t dtype)
{
    if (dtype == EC_INT16)
        return (int16_t)ec_get_u16(p);
    if (dtype == EC_INT24)
        return (int32_t)((uint32_t)p[0] << 8 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 24) >> 8;
    return (int32_t)ec_get_u32(p);
}

static float read_float(const uint8_t *p)
{
    const uint32_t bits = ec_get_u32(p);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static int64_t limit(int64_t value, uint8_t dtype)
{
    const int64_t top = dtype == EC_INT16 ? INT16_MAX : dtype == EC_INT24 ? 0x7FFFFF : INT32_MAX;
    return value > top ? top : value < -top - 1 ? -top - 1 : value;
}

static uint8_t *put_int(uint8_t *p, int64_t value, uint8_t dtype)
{
    const uint32_t bits = (uint32_t)limit(value, dtype);
    if (dtype == EC_INT16)
        return ec_put_u16(p, bits);
    return dtype == EC_INT24 ? ec_put_u24(p, bits) : ec_put_u32(p, bits);
}

static void model_wire(sensor *self, uint64_t index, uint8_t *row)
{
    double values[EC_MAX_CHANNELS];
    model_row(&self->stream, self->seed, index, values);
    uint8_t *p = row;
    for (uint8_t c = 0; c < self->stream.n_channels; c++) {
        const double raw = values[c] / (double)self->channels[c].scale;
        if (self->stream.dtype == EC_FLOAT32)
            p = ec_put_f32(p, (float)raw);
        else
            p = put_int(p, (int64_t)(raw < 0 ? raw - 0.5 : raw + 0.5), self->stream.dtype);
    }
}

bool sensor_row(sensor *self, uint64_t index, bool loop, uint8_t *row)
{
    if (self->path == NULL)
        model_wire(self, index, self->last);
    else if (loop || index < self->n_rows)
        memcpy(self->last, self->rows + index % self->n_rows * self->row_bytes, self->row_bytes);
    else
        return false;
    const uint8_t dtype = self->stream.dtype;
    const uint32_t width = self->row_bytes / self->stream.n_channels;
    for (uint8_t c = 0; c < self->stream.n_channels; c++) {
        const uint8_t *from = self->last + c * width;
        if (self->zero[c] != 0)
            put_int(row + c * width, (int64_t)read_int(from, dtype) - self->zero[c], dtype);
        else if (self->zero_f[c] != 0.0f)
            ec_put_f32(row + c * width, read_float(from) - self->zero_f[c]);
        else
            memcpy(row + c * width, from, width);
    }
    return true;
}

bool sensor_tare(sensor *self)
{
    const uint8_t kind = self->stream.kind;
    if (kind != EC_FORCE && kind != EC_TACTILE && kind != EC_SCALAR)
        return false;
    const uint32_t width = self->row_bytes / self->stream.n_channels;
    for (uint8_t c = 0; c < self->stream.n_channels; c++) {
        if (self->stream.dtype == EC_FLOAT32)
            self->zero_f[c] = read_float(self->last + c * width);
        else
            self->zero[c] = read_int(self->last + c * width, self->stream.dtype);
    }
    return true;
}
