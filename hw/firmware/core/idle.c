#include "internal.h"

/* A sensor must be missing at two looks in a row. */
#define LOOK_EVERY_US 250000u
/* Sensors come up in the meantime. */
#define FIRST_LOOK_US 500000u
/* Nothing tells whether an event has arrived, and a host may come later: what stands is told again. */
#define TELL_AGAIN_US 4000000u
#define GREETED_US 250000u
#define BUSY_US 20000u

void ec_begin_looks(ec_device *device)
{
    device->look_us = device->now_us + FIRST_LOOK_US;
    device->tell_again_us = device->look_us;
}

void ec_tell_again_soon(ec_device *device)
{
    const uint64_t soon = device->now_us + GREETED_US;
    if (soon < device->tell_again_us)
        device->tell_again_us = soon;
    if (device->tell_again_us < device->look_us)
        device->look_us = device->tell_again_us;
}

static void look_at(ec_device *device, uint8_t stream, bool tell_again)
{
    ec_sampler *sampler = &device->samplers[stream];
    if (device->hal.alive(device->hal.ctx, stream)) {
        if (sampler->fault)
            ec_send_event(device, EC_SENSOR_OK, stream, device->now_us, 0, "");
        sampler->quiet = false;
        sampler->fault = false;
    } else if (!sampler->quiet) {
        sampler->quiet = true;
        sampler->quiet_t_us = device->now_us;
    } else if (!sampler->fault || tell_again) {
        ec_tell_fault(device, stream);
    }
}

void ec_look(ec_device *device)
{
    if (device->now_us < device->look_us)
        return;
    /* Where nobody reads there is no use in filling the queue with what will be old. */
    device->look_us = device->now_us + (device->queue.used > 0 ? BUSY_US : LOOK_EVERY_US);
    if (device->queue.used > 0)
        return;
    const bool tell_again = device->now_us >= device->tell_again_us;
    if (tell_again)
        device->tell_again_us = device->now_us + TELL_AGAIN_US;
    for (uint8_t s = 0; s < device->n_streams; s++)
        look_at(device, s, tell_again);
}

bool ec_rows_come(const ec_device *device, uint8_t stream)
{
    const ec_sampler *sampler = &device->samplers[stream];
    return device->now_us < sampler->row_us + sampler->quiet_limit_us;
}
