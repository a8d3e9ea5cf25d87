#include "internal.h"
#include "wire.h"

/* A sensor that gives nothing for this long, and for this many periods, is reported. */
#define QUIET_US 100000u
#define QUIET_PERIODS 5u
#define DELTA_MAX_US 65535u
#define EVENT_OVERRUN_BYTES 32u
/* Rows that are given come late, but a batch waits no longer than this for them. */
#define GIVEN_WAIT_US 25000u

uint32_t ec_value_bytes(uint8_t dtype)
{
    switch (dtype) {
    case EC_INT16: return 2;
    case EC_INT24: return 3;
    case EC_INT32:
    case EC_FLOAT32: return 4;
    default: return 0;
    }
}

/* Times: two bytes for a uniform step, two per sample after the first otherwise. */
static uint32_t payload_bytes(uint32_t n, uint32_t row_bytes, bool deltas)
{
    return EC_SAMPLES_HEAD_BYTES + (deltas ? 2 * (n - 1) : 2) + n * row_bytes;
}

/* Divisions are done here: they take a Cortex-M0+ long, and the main loop asks for their results all the time. */
void ec_set_rate(ec_sampler *sampler, uint32_t rate_mhz)
{
    const uint64_t periods_us = QUIET_PERIODS * UINT64_C(1000000000) / rate_mhz;
    sampler->rate_mhz = rate_mhz;
    sampler->period_us = (UINT64_C(1000000000) + rate_mhz - 1) / rate_mhz;
    sampler->quiet_limit_us = periods_us > QUIET_US ? periods_us : QUIET_US;
}

void ec_init_sampler(ec_device *device, uint8_t stream)
{
    ec_sampler *sampler = &device->samplers[stream];
    ec_set_rate(sampler, device->streams[stream].rate_mhz);
    sampler->row_bytes = ec_value_bytes(device->streams[stream].dtype) * device->streams[stream].n_channels;
    sampler->batch_max = EC_BATCH_MAX;
    while (sampler->batch_max > 1 &&
           payload_bytes(sampler->batch_max, sampler->row_bytes, true) > EC_PAYLOAD_MAX)
        sampler->batch_max--;
}

static uint64_t due_us(const ec_device *device, const ec_sampler *sampler, uint64_t tick)
{
    return device->start_us + tick * UINT64_C(1000000000) / sampler->rate_mhz;
}

/* Report rows lost on this stream, once the queue has room again. */
static void report_lost(ec_device *device, uint8_t stream)
{
    ec_sampler *sampler = &device->samplers[stream];
    if (sampler->lost == 0)
        return;
    ec_send_event(device, EC_OVERRUN, stream, sampler->lost_t_us, sampler->lost, "transmit queue full");
    sampler->lost = 0;
}

static void send_batch(ec_device *device, uint8_t stream)
{
    ec_sampler *sampler = &device->samplers[stream];
    const uint32_t n = sampler->n;
    if (n == 0)
        return;
    sampler->n = 0;
    const uint32_t step = n > 1 ? (uint32_t)(sampler->t_us[1] - sampler->t_us[0]) : 0;
    bool uniform = true;
    for (uint32_t i = 2; i < n; i++)
        uniform = uniform && sampler->t_us[i] - sampler->t_us[i - 1] == step;
    const size_t bytes = payload_bytes(n, sampler->row_bytes, !uniform);
    /* Room for the overrun event too: it must come before the first batch after the loss. */
    if (!ec_queue_fits(&device->queue, bytes + (sampler->lost ? EVENT_OVERRUN_BYTES : 0), EC_QUEUE_RESERVE)) {
        if (sampler->lost == 0)
            sampler->lost_t_us = sampler->t_us[0];
        sampler->lost += n;
        return;
    }
    report_lost(device, stream);
    uint8_t payload[EC_PAYLOAD_MAX];
    uint8_t *p = ec_put_u8(payload, stream);
    p = ec_put_u8(p, n);
    p = ec_put_u8(p, uniform ? EC_UNIFORM : EC_DELTAS);
    p = ec_put_u8(p, 0);
    p = ec_put_u32(p, sampler->produced - n);
    p = ec_put_u32(p, (uint32_t)sampler->t_us[0]);
    if (uniform)
        p = ec_put_u16(p, step);
    for (uint32_t i = 1; !uniform && i < n; i++)
        p = ec_put_u16(p, (uint32_t)(sampler->t_us[i] - sampler->t_us[i - 1]));
    memcpy(p, sampler->rows, n * sampler->row_bytes);
    ec_queue_push(&device->queue, EC_SAMPLES, payload, bytes);
}

void ec_tell_fault(ec_device *device, uint8_t stream)
{
    ec_sampler *sampler = &device->samplers[stream];
    if (sampler->reason != NULL)
        sampler->told = sampler->reason;
    else if (!sampler->fault) /* while a driver tries again it knows of no reason */
        sampler->told = "sensor gives no data";
    sampler->fault = true;
    ec_send_event(device, EC_SENSOR_FAULT, stream, sampler->quiet_t_us, 0, sampler->told);
}

static void note_quiet(ec_device *device, uint8_t stream, uint64_t t_us)
{
    ec_sampler *sampler = &device->samplers[stream];
    if (!sampler->quiet) {
        sampler->quiet = true;
        sampler->quiet_t_us = t_us;
    }
    if (!sampler->fault && t_us - sampler->quiet_t_us >= sampler->quiet_limit_us)
        ec_tell_fault(device, stream);
}

/* Put a row, which lies at the end of the batch already, into the batch; the next is expected at next_us. */
static void keep_row(ec_device *device, uint8_t stream, uint64_t t_us, uint64_t next_us)
{
    ec_sampler *sampler = &device->samplers[stream];
    if (sampler->fault)
        ec_send_event(device, EC_SENSOR_OK, stream, t_us, 0, "");
    sampler->quiet = false;
    sampler->fault = false;
    sampler->t_us[sampler->n++] = t_us;
    sampler->produced++;
    if (sampler->n == sampler->batch_max || next_us - sampler->t_us[0] >= EC_BATCH_US)
        send_batch(device, stream);
}

static void take_row(ec_device *device, uint8_t stream, uint64_t t_us, uint64_t next_us)
{
    ec_sampler *sampler = &device->samplers[stream];
    if (sampler->n > 0 && t_us - sampler->t_us[sampler->n - 1] > DELTA_MAX_US)
        send_batch(device, stream);
    uint8_t *row = sampler->rows + sampler->n * sampler->row_bytes;
    if (!device->hal.read_sensor(device->hal.ctx, stream, sampler->produced, t_us, row)) {
        note_quiet(device, stream, t_us);
        if (sampler->n > 0 && next_us - sampler->t_us[0] >= EC_BATCH_US)
            send_batch(device, stream);
        return;
    }
    keep_row(device, stream, t_us, next_us);
}

void ec_give_row(ec_device *device, uint8_t stream, uint64_t t_us, const uint8_t *row)
{
    ec_sampler *sampler = &device->samplers[stream];
    sampler->row_us = t_us;
    /* A row of before START may still come after it. */
    if (!device->sampling || t_us < device->start_us)
        return;
    if (sampler->n > 0 && t_us - sampler->t_us[sampler->n - 1] > DELTA_MAX_US)
        send_batch(device, stream);
    memcpy(sampler->rows + sampler->n * sampler->row_bytes, row, sampler->row_bytes);
    sampler->quiet_t_us = t_us + sampler->period_us;
    keep_row(device, stream, t_us, sampler->quiet_t_us);
}

void ec_lose_rows(ec_device *device, uint8_t stream, uint64_t t_us, uint32_t n)
{
    ec_sampler *sampler = &device->samplers[stream];
    if (!device->sampling || n == 0)
        return;
    send_batch(device, stream);
    if (sampler->lost == 0)
        sampler->lost_t_us = t_us;
    sampler->lost += n;
    sampler->produced += n;
}

void ec_explain_fault(ec_device *device, uint8_t stream, const char *reason)
{
    device->samplers[stream].reason = reason;
}

/* A stream whose rows are given: a batch that has waited long enough leaves, and silence is noticed. */
static void watch_given(ec_device *device, uint8_t stream)
{
    ec_sampler *sampler = &device->samplers[stream];
    if (sampler->n > 0 && device->now_us >= sampler->t_us[0] + GIVEN_WAIT_US)
        send_batch(device, stream);
    if (device->now_us >= sampler->quiet_t_us + sampler->quiet_limit_us && !sampler->fault) {
        sampler->quiet = true;
        note_quiet(device, stream, device->now_us);
    }
}

void ec_take_due(ec_device *device)
{
    for (uint8_t s = 0; s < device->n_streams; s++) {
        ec_sampler *sampler = &device->samplers[s];
        if (device->streams[s].given) {
            watch_given(device, s);
            continue;
        }
        uint64_t due = due_us(device, sampler, sampler->ticks);
        while (due <= device->now_us) {
            sampler->ticks++;
            const uint64_t next = due_us(device, sampler, sampler->ticks);
            take_row(device, s, due, next);
            due = next;
        }
    }
}

uint64_t ec_batch_full_us(const ec_device *device, uint8_t stream)
{
    const ec_sampler *sampler = &device->samplers[stream];
    if (device->streams[stream].given) {
        const uint64_t quiet = sampler->fault ? UINT64_MAX : sampler->quiet_t_us + sampler->quiet_limit_us;
        const uint64_t leaves = sampler->n > 0 ? sampler->t_us[0] + GIVEN_WAIT_US : UINT64_MAX;
        return quiet < leaves ? quiet : leaves;
    }
    uint64_t due = due_us(device, sampler, sampler->ticks);
    const uint64_t first = sampler->n > 0 ? sampler->t_us[0] : due;
    uint64_t tick = sampler->ticks;
    for (uint32_t n = sampler->n + 1; n < sampler->batch_max; n++) {
        const uint64_t next = due_us(device, sampler, ++tick);
        if (next - first >= EC_BATCH_US)
            break;
        due = next;
    }
    return due;
}

void ec_start(ec_device *device)
{
    device->start_us = device->now_us;
    for (uint8_t s = 0; s < device->n_streams; s++) {
        ec_sampler *sampler = &device->samplers[s];
        sampler->ticks = 0;
        sampler->produced = 0;
        sampler->lost = 0;
        sampler->n = 0;
        sampler->quiet = false;
        sampler->quiet_t_us = device->now_us;
        sampler->fault = false;
    }
    device->sampling = true;
    device->hal.sampling(device->hal.ctx, true);
}

void ec_stop(ec_device *device)
{
    if (!device->sampling)
        return;
    ec_take_due(device);
    for (uint8_t s = 0; s < device->n_streams; s++) {
        send_batch(device, s);
        report_lost(device, s);
    }
    device->sampling = false;
    device->hal.sampling(device->hal.ctx, false);
}
